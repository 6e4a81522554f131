// SPDX-License-Identifier: Apache-2.0
// Convolutional networks, channel by channel: maps lie in grids, see kernels.h.
#include "instruction_set.h"

namespace rlpd::INSTRUCTION_SET {
namespace {

constexpr long FILTERS = 16;  // whose weights share the lines of the cache, and stay there for a whole map
constexpr int OUTPUTS = ROWS == 6 ? 4 : ROWS, VECTORS = ROWS == 6 ? 3 : 2;  // sums in registers: 16 / OUTPUTS is whole

// M outputs at V vectors of places. Nothing is packed: what a tap sees of neighbouring places lies side by side.
template <int M, int V>
__attribute__((noinline)) void convolve_tile(const float* kernel, long filters, const float* in, const long* taps,
                                             long k, float* out, long n) {
  Vector sums[M][V] = {};
  for (long q = 0; q < k; ++q, kernel += filters) {
    const float* const from = in + taps[q];
    Vector row[V];
    for (int v = 0; v < V; ++v) row[v] = *reinterpret_cast<const Unaligned*>(from + v * WIDTH);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sums[i][v] += kernel[i] * row[v];
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i, out += n)
    for (int v = 0; v < V; ++v) *reinterpret_cast<Unaligned*>(out + v * WIDTH) = sums[i][v];
}

// The same for any number of outputs.
template <int M, int V>
inline void convolve_places(const float* kernel, long filters, long count, const float* in, const long* taps, long k,
                            float* out, long n) {
  for (; count >= M; count -= M, kernel += M, out += M * n)
    convolve_tile<M, V>(kernel, filters, in, taps, k, out, n);
  if constexpr (M > 1) convolve_places<M / 2, V>(kernel, filters, count, in, taps, k, out, n);
}

template <int STRIDE, bool ADD>
inline void rectify_row(Affine f, const float* map, Affine g, const float* shortcut, long n, float* to) {
#pragma omp simd
  for (long i = 0; i < n; ++i) {
    float value = map[i * STRIDE] * f.scale + f.shift;
    if constexpr (ADD) value += shortcut[i * STRIDE] * g.scale + g.shift;
    to[i] = value > 0 ? value : 0;
  }
}

template <int STRIDE>
void rectify_as(Affine f, const float* map, long row, Affine g, const float* shortcut, long shortcut_row, long height,
                long width, Grid grid, float* to) {
  for (long y = 0; y < height; ++y, map += row, shortcut += shortcut ? shortcut_row : 0) {
    const long r = y + grid.top;
    for (long x = 0; x < STRIDE; ++x) {
      const long q = x + grid.left, n = (width - x + STRIDE - 1) / STRIDE;
      float* const start =
          to + (r % STRIDE * STRIDE + q % STRIDE) * grid.phase + r / STRIDE * grid.row + q / STRIDE;
      if (shortcut) rectify_row<STRIDE, true>(f, map + x, g, shortcut + x, n, start);
      else rectify_row<STRIDE, false>(f, map + x, g, nullptr, n, start);
    }
  }
}

}  // namespace

void convolve(const float* kernel, long filters, long first, long count, const float* in, const long* taps, long k,
              float* out, long n) {
  for (long i = 0; i < count; i += FILTERS) {
    const long together = count - i < FILTERS ? count - i : FILTERS;
    const float* const from = kernel + first + i;
    float* const to = out + i * n;
    long place = 0;
    for (; place + VECTORS * WIDTH <= n; place += VECTORS * WIDTH)
      convolve_places<OUTPUTS, VECTORS>(from, filters, together, in + place, taps, k, to + place, n);
    for (; place < n; place += WIDTH)
      convolve_places<OUTPUTS, 1>(from, filters, together, in + place, taps, k, to + place, n);
  }
}

void moments(float* map, long height, long width, long row, float sums[2]) {
  for (long y = 0; y < height; ++y)
    for (long x = width; x < row; ++x) map[y * row + x] = 0;
  float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum, squares)
  for (long i = 0; i < height * row; ++i) {
    sum += map[i];
    squares += map[i] * map[i];
  }
  sums[0] = sum, sums[1] = squares;
}

void rectify(Affine f, const float* map, long row, Affine g, const float* shortcut, long shortcut_row, long height,
             long width, Grid grid, float* to) {
  if (grid.stride == 1) rectify_as<1>(f, map, row, g, shortcut, shortcut_row, height, width, grid, to);
  else rectify_as<2>(f, map, row, g, shortcut, shortcut_row, height, width, grid, to);
}

void pool(const float* in, const long* taps, long k, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = in[i + taps[0]];
  for (long q = 1; q < k; ++q)
#pragma omp simd
    for (long i = 0; i < n; ++i) out[i] = in[i + taps[q]] > out[i] ? in[i + taps[q]] : out[i];
}

}  // namespace rlpd::INSTRUCTION_SET
