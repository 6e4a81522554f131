// SPDX-License-Identifier: Apache-2.0
// The arithmetic of networks, for one thread, which is compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace rlpd {

enum Activation : int { TANH, RELU, SILU };

// Element (i, j) is data[i * row + j * column]: a transposed matrix is one with these exchanged.
struct Matrix {
  const float* data;
  long row, column;
};

// The same in bytes, element (i, j) times scale[i * scale_row + j * scale_column].
struct Bytes {
  const uint8_t* data;
  long row, column;
  const float* scale;
  long scale_row, scale_column;
};

// How a map lies in memory for a window that moves over it in steps of 1 or 2: with the zeros around it, in steps of 2
// taken apart into even and odd rows and columns, so that what neighbouring places see lies side by side. Place (y, x)
// is, with r = y + top and q = x + left, at (r % stride * stride + q % stride) * phase + r / stride * row + q / stride.
struct Grid { long stride, top, left, row, phase; };

struct Affine { float scale, shift; };

// What is normalised, and how; scale and shift are nullptr without LayerNorm.
struct Nonlinearity {
  const float *scale, *shift;
  Activation activation;
};

struct Adam {
  float learning_rate, correction1, correction2, tau;  // corrections: 1 / (1 - beta ^ step)
};

struct Kernels {
  // c (m, n), whose rows are `stride` apart, = a (m, k) b (k, n) + bias (n), or without bias if that is nullptr.
  // `panel`: room for PANEL * k floats, aligned to 64 bytes.
  void (*multiply)(Matrix a, Matrix b, const float* bias, float* c, long stride, long m, long n, long k, float* panel);
  void (*multiply_bytes)(Matrix a, Bytes b, const float* bias, float* c, long stride, long m, long n, long k,
                         float* panel);

  // z (rows, n), in place: normalised. inverse_std (rows), only with LayerNorm. active (rows, n): the outputs.
  void (*activate)(Nonlinearity f, long rows, long n, float* z, float* inverse_std, float* active);

  // The gradient of z from that of the outputs, which is overwritten. sums (3, n): the block's gradients of scale and
  // shift, and of the bias before them.
  void (*deactivate)(Nonlinearity f, long rows, long n, const float* normal, const float* inverse_std,
                     const float* active, float* grad, float* grad_z, float* sums);

  // A step of Adam for n parameters, and of the target that follows them unless that is nullptr. Every array
  // is read from `in` and written to `out`: parameters, first and second moment, target.
  void (*adam)(Adam how, long n, const float* grad, const float* const in[4], float* const out[4]);

  // Outputs `first` to first + count of a convolution, each in a row of n, a multiple of PLACES: place p of output f is
  // the sum of kernel[q * filters + f] * in[p + taps[q]] over q < k.
  void (*convolve)(const float* kernel, long filters, long first, long count, const float* in, const long* taps, long k,
                   float* out, long n);

  // Sum and sum of squares of a map whose rows are `row` apart; what lies between them becomes 0.
  void (*moments)(float* map, long height, long width, long row, float sums[2]);

  // To a grid: max(f(map) + g(shortcut), 0), or without shortcut if that is nullptr.
  void (*rectify)(Affine f, const float* map, long row, Affine g, const float* shortcut, long shortcut_row, long height,
                  long width, Grid grid, float* to);

  // out[p] = the largest of in[p + taps[q]] over q < k, for p < n.
  void (*pool)(const float* in, const long* taps, long k, float* out, long n);
};

constexpr long PANEL = 32;   // columns that are multiplied at once, at most
constexpr long PLACES = 16;  // of a map that are computed at once, at least

namespace baseline { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
extern const Kernels& kernels;  // for this processor

}  // namespace rlpd
