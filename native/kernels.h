// SPDX-License-Identifier: Apache-2.0
// The arithmetic of dense networks, for one thread. kernels.cpp is compiled once for each instruction set.
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
};

constexpr long PANEL = 32;  // columns that are multiplied at once, at most

namespace baseline { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
extern const Kernels& kernels;  // for this processor

}  // namespace rlpd
