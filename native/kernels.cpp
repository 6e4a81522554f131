// SPDX-License-Identifier: Apache-2.0
// Dense networks and Adam.
#include <math.h>
#include <string.h>

#include "instruction_set.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace rlpd::INSTRUCTION_SET {
namespace {

constexpr long AHEAD = 128;       // bytes to fetch: rows are too far apart for a processor to guess what comes next
constexpr float EPSILON = 1e-6f;  // layers.py's

// c (M, n) = a (M, k) b (k, n) + start (n), n at most V vectors; b is packed, its rows V vectors apart.
// Not inlined: GCC then finds registers for all sums. `a` comes in pieces, which registers hold.
template <int M, int V>
__attribute__((noinline)) void multiply_tile(const float* a, long a_row, long a_column, const float* b,
                                             const float* start, float* c, long stride, long n, long k) {
  Vector sums[M][V];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) sums[i][v] = *reinterpret_cast<const Vector*>(start + v * WIDTH);
  for (long q = 0; q < k; ++q, a += a_column, b += V * WIDTH) {
    Vector row[V];
    for (int v = 0; v < V; ++v) row[v] = *reinterpret_cast<const Vector*>(b + v * WIDTH);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sums[i][v] += a[i * a_row] * row[v];
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i, c += stride) {
    alignas(64) float edge[V * WIDTH];
    float* const to = n == V * WIDTH ? c : edge;
    for (int v = 0; v < V; ++v) *reinterpret_cast<Unaligned*>(to + v * WIDTH) = sums[i][v];
    for (long j = 0; to == edge && j < n; ++j) c[j] = edge[j];
  }
}

// The same for any number of rows.
template <int M, int V>
inline void multiply_panel(Matrix a, const float* b, const float* start, float* c, long stride, long m, long n,
                           long k) {
  for (; m >= M; m -= M, a.data += M * a.row, c += M * stride)
    multiply_tile<M, V>(a.data, a.row, a.column, b, start, c, stride, n, k);
  if constexpr (M > 1) multiply_panel<M / 2, V>(a, b, start, c, stride, m, n, k);
}

// Copy `width` columns of b (k, n) to `panel`, whose rows are WIDE apart, and zeros beside them.
template <int WIDE>
inline void pack(Matrix b, long width, long k, float* panel) {
  long q = 0;
#if defined(__SSE2__)
  for (; width == WIDE && b.row == 1 && q + 4 <= k; q += 4) {  // transposed: one element after the other is far slower
    for (long i = 0; i < WIDE; i += 4) {
      const float* from = b.data + q + i * b.column;
      float* const to = panel + q * WIDE + i;
      __m128 rows[] = {_mm_loadu_ps(from), _mm_loadu_ps(from + b.column), _mm_loadu_ps(from + 2 * b.column),
                       _mm_loadu_ps(from + 3 * b.column)};
      _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
      for (int r = 0; r < 4; ++r) _mm_store_ps(to + r * WIDE, rows[r]);
    }
  }
#endif
  for (; q < k; ++q) {
    const float* from = b.data + q * b.row;
    float* const to = panel + q * WIDE;
    if (width == WIDE && b.column == 1) memcpy(to, from, WIDE * sizeof(float));
    else for (long i = 0; i < WIDE; ++i) to[i] = i < width ? from[i * b.column] : 0;
  }
}

#if defined(__SSE2__)
inline void widen(__m128i bytes, const float* scale, float* to) {
#if defined(__AVX512F__)
  _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), _mm512_loadu_ps(scale)));
#else
  uint8_t each[16];
  memcpy(each, &bytes, sizeof each);
#pragma omp simd
  for (int i = 0; i < 16; ++i) to[i] = each[i] * scale[i];
#endif
}
#endif

// The same for bytes.
template <int WIDE>
inline void pack(Bytes b, long width, long k, float* panel) {
  long q = 0;
#if defined(__SSE2__)
  if constexpr (WIDE % 16 == 0)
    for (; width == WIDE && b.row == 1 && b.scale_column == 1 && q + 16 <= k; q += 16)
      for (long i = 0; i < WIDE; i += 16) {
        __m128i bytes[16];
        for (int r = 0; r < 16; ++r) {
          const uint8_t* const from = b.data + q + (i + r) * b.column;
          bytes[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
          __builtin_prefetch(from + AHEAD);
        }
        for (int round = 0; round < 4; ++round) {  // a perfect shuffle of the 256 bytes; four of them transpose
          __m128i shuffled[16];
          for (int r = 0; r < 8; ++r) {
            shuffled[2 * r] = _mm_unpacklo_epi8(bytes[r], bytes[r + 8]);
            shuffled[2 * r + 1] = _mm_unpackhi_epi8(bytes[r], bytes[r + 8]);
          }
          memcpy(bytes, shuffled, sizeof bytes);
        }
        for (int r = 0; r < 16; ++r) widen(bytes[r], b.scale + i, panel + (q + r) * WIDE + i);
      }
#endif
  for (; q < k; ++q) {
    const uint8_t* from = b.data + q * b.row;
    const float* scale = b.scale + q * b.scale_row;
    float* const to = panel + q * WIDE;
    if (width == WIDE && b.column == 1 && b.scale_column == 0) {
      __builtin_prefetch(from + AHEAD);
#pragma omp simd
      for (long i = 0; i < WIDE; ++i) to[i] = from[i] * *scale;
    } else {
      for (long i = 0; i < WIDE; ++i) to[i] = i < width ? from[i * b.column] * scale[i * b.scale_column] : 0;
    }
  }
}

inline Matrix from_column(Matrix b, long j) { return {b.data + j * b.column, b.row, b.column}; }
inline Bytes from_column(Bytes b, long j) {
  return {b.data + j * b.column, b.row, b.column, b.scale + j * b.scale_column, b.scale_row, b.scale_column};
}

template <int V, typename B>
inline void multiply_columns(Matrix a, B b, const float* bias, float* c, long stride, long m, long n, long k,
                             float* panel) {
  constexpr long WIDE = V * WIDTH;
  for (long j = 0; j < n; j += WIDE) {
    const long width = n - j < WIDE ? n - j : WIDE;
    alignas(64) float start[WIDE] = {};
    if (bias) memcpy(start, bias + j, width * sizeof(float));
    pack<WIDE>(from_column(b, j), width, k, panel);
    multiply_panel<ROWS, V>(a, panel, start, c + j, stride, m, width, k);
  }
}

// A single column: nothing is gained by a panel of which one column counts.
void multiply_column(Matrix a, Matrix b, const float* bias, float* c, long stride, long m, long k) {
  for (long i = 0; i < m; ++i) c[i * stride] = bias ? *bias : 0;
  if (a.column == 1 && b.row == 1) {
    for (long i = 0; i < m; ++i) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (long q = 0; q < k; ++q) sum += a.data[i * a.row + q] * b.data[q];
      c[i * stride] += sum;
    }
  } else {
    for (long q = 0; q < k; ++q)
#pragma omp simd
      for (long i = 0; i < m; ++i) c[i * stride] += a.data[i * a.row + q * a.column] * b.data[q * b.row];
  }
}

template <typename B>
void multiply_panels(Matrix a, B b, const float* bias, float* c, long stride, long m, long n, long k, float* panel) {
  if (n > WIDTH) multiply_columns<2>(a, b, bias, c, stride, m, n, k, panel);
  else multiply_columns<1>(a, b, bias, c, stride, m, n, k, panel);
}

void multiply(Matrix a, Matrix b, const float* bias, float* c, long stride, long m, long n, long k, float* panel) {
  if (n == 1) multiply_column(a, b, bias, c, stride, m, k);
  else multiply_panels(a, b, bias, c, stride, m, n, k, panel);
}

// exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, by r's Taylor series; written so that compilers vectorise it.
inline float exponential(float x) {
  x = x < -87 ? -87 : x > 88 ? 88 : x;
  const float n = floorf(x * 1.44269504f + 0.5f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  const float series = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r / 720)))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return series * power;
}

inline float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

template <Activation F> inline float value(float x) {
  if constexpr (F == TANH) return 2 * sigmoid(2 * x) - 1;
  if constexpr (F == RELU) return x < 0 ? 0 : x;  // NaN stays NaN: the learner looks for it
  return x * sigmoid(x);
}

template <Activation F> inline float slope(float x, float y) {
  if constexpr (F == TANH) return 1 - y * y;
  if constexpr (F == RELU) return x > 0 ? 1 : 0;
  const float s = sigmoid(x);
  return s + y * (1 - s);
}

template <Activation F>
void activate_as(Nonlinearity f, long rows, long n, float* z, float* inverse_std, float* active) {
  for (long i = 0; i < rows; ++i, z += n, active += n) {
    if (!f.scale) {
#pragma omp simd
      for (long j = 0; j < n; ++j) active[j] = value<F>(z[j]);
      continue;
    }
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = 0; j < n; ++j) sum += z[j];
    const float mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (long j = 0; j < n; ++j) squares += (z[j] - mean) * (z[j] - mean);
    const float inverse = inverse_std[i] = 1 / sqrtf(squares / n + EPSILON);
#pragma omp simd
    for (long j = 0; j < n; ++j) {
      z[j] = (z[j] - mean) * inverse;
      active[j] = value<F>(z[j] * f.scale[j] + f.shift[j]);
    }
  }
}

template <Activation F>
void deactivate_as(Nonlinearity f, long rows, long n, const float* normal, const float* inverse_std,
                   const float* active, float* grad, float* grad_z, float* sums) {
  float *sum_scale = sums, *sum_shift = sums + n, *sum_bias = sums + 2 * n;
  for (long i = 0; i < rows; ++i, normal += n, active += n, grad += n, grad_z += n) {
    if (!f.scale) {
#pragma omp simd
      for (long j = 0; j < n; ++j) sum_bias[j] += grad_z[j] = grad[j] * slope<F>(normal[j], active[j]);
      continue;
    }
    // With h the normalised input and g the gradient times scale: (g - mean(g) - h * mean(g * h)) / std.
    float mean = 0, along = 0;
#pragma omp simd reduction(+ : mean, along)
    for (long j = 0; j < n; ++j) {
      const float shifted = grad[j] * slope<F>(normal[j] * f.scale[j] + f.shift[j], active[j]);
      const float scaled = shifted * f.scale[j];
      sum_scale[j] += shifted * normal[j];
      sum_shift[j] += shifted;
      mean += scaled;
      along += scaled * normal[j];
      grad[j] = scaled;
    }
    mean /= n, along /= n;
#pragma omp simd
    for (long j = 0; j < n; ++j) sum_bias[j] += grad_z[j] = inverse_std[i] * (grad[j] - mean - normal[j] * along);
  }
}

template <typename... Arguments>
void activate(Nonlinearity f, Arguments... arguments) {
  if (f.activation == TANH) activate_as<TANH>(f, arguments...);
  else if (f.activation == RELU) activate_as<RELU>(f, arguments...);
  else activate_as<SILU>(f, arguments...);
}

template <typename... Arguments>
void deactivate(Nonlinearity f, Arguments... arguments) {
  if (f.activation == TANH) deactivate_as<TANH>(f, arguments...);
  else if (f.activation == RELU) deactivate_as<RELU>(f, arguments...);
  else deactivate_as<SILU>(f, arguments...);
}

void adam(Adam how, long n, const float* grad, const float* const in[4], float* const out[4]) {
  constexpr float BETA1 = 0.9f, BETA2 = 0.999f, STABLE = 1e-8f;
  const bool follow = in[3];
#pragma omp simd
  for (long i = 0; i < n; ++i) {
    const float first = BETA1 * in[1][i] + (1 - BETA1) * grad[i];
    const float second = BETA2 * in[2][i] + (1 - BETA2) * grad[i] * grad[i];
    const float change = how.correction1 * first / (sqrtf(how.correction2 * second) + STABLE);
    out[0][i] = in[0][i] - how.learning_rate * change;
    out[1][i] = first;
    out[2][i] = second;
    if (follow) out[3][i] = how.tau * out[0][i] + (1 - how.tau) * in[3][i];
  }
}

}  // namespace

const Kernels kernels = {multiply, multiply_panels<Bytes>, activate, deactivate, adam, convolve, moments, rectify, pool};

}  // namespace rlpd::INSTRUCTION_SET
