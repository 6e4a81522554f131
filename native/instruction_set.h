// SPDX-License-Identifier: Apache-2.0
// What is compiled once for each instruction set: kernels.cpp and convolution.cpp.
//
// Nothing of the standard library is instantiated there: the linker might choose a copy of it that was compiled for
// an instruction set which the processor lacks.
#pragma once

#include "kernels.h"

namespace rlpd::INSTRUCTION_SET {

// See struct Kernels.
void convolve(const float* kernel, long filters, long first, long count, const float* in, const long* taps, long k,
              float* out, long n);
void moments(float* map, long height, long width, long row, float sums[2]);
void rectify(Affine f, const float* map, long row, Affine g, const float* shortcut, long shortcut_row, long height,
             long width, Grid grid, float* to);
void pool(const float* in, const long* taps, long k, float* out, long n);

namespace {

// ROWS x 2 vectors of sums stay in registers, with two vectors of b and an element of a: 32 registers, or 16.
#if defined(__AVX512F__)
constexpr int WIDTH = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int WIDTH = 8, ROWS = 6;
#else
constexpr int WIDTH = 4, ROWS = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

}  // namespace
}  // namespace rlpd::INSTRUCTION_SET
