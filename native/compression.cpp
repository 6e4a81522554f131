// SPDX-License-Identifier: Apache-2.0
// What JAX calls for one camera of a batch (rl/native.py): its feature maps to a vector, forward and backward.
//
// Each channel's places are embedded, a dense layer, LayerNorm and tanh follow. The embedded maps stand with images as
// columns, y (channels * embeddings, images): a channel with eight embeddings then is one tile of the innermost loop.
#include <cstring>

#include "operation.h"

namespace rlpd {
namespace {

struct Compression {
  long images, channels, places, embeddings, outputs, stride;  // stride: from one image to the next
  const float* numbers = nullptr;                              // the maps, or
  const uint8_t* bytes = nullptr;                              // followed by each image's scale
  std::vector<float> scales;
  const float *embedding, *kernel, *bias;  // (channels, places, embeddings), (channels * embeddings, outputs), (outputs)
  Nonlinearity nonlinearity;

  explicit Compression(Arrays& in) {
    const ffi::AnyBuffer &maps = in.take(), &weights = in.take(), &dense = in.take();
    images = maps.dimensions()[0], stride = maps.dimensions()[1];
    embedding = weights.typed_data<float>();
    channels = weights.dimensions()[0], places = weights.dimensions()[1], embeddings = weights.dimensions()[2];
    kernel = dense.typed_data<float>(), outputs = dense.dimensions()[1], bias = in.floats();
    nonlinearity.scale = in.floats(), nonlinearity.shift = in.floats(), nonlinearity.activation = TANH;
    if (maps.element_type() == ffi::F32) {
      numbers = maps.typed_data<float>();
      return;
    }
    bytes = maps.typed_data<uint8_t>();
    scales.resize(images);
    for (long i = 0; i < images; ++i)
      std::memcpy(&scales[i], bytes + i * stride + channels * places, sizeof(float));
  }

  long inputs() const { return channels * embeddings; }  // of the dense layer
  long blocks() const { return (images + ROWS - 1) / ROWS; }

  // c (m, n) = a (m, k) times the maps of a channel from `image` on, (places, images) or (images, places).
  void multiply(Matrix a, long image, long channel, bool by_place, float* c, long c_stride, long m, long n, long k,
                float* panel) const {
    const long first = image * stride + channel * places, row = by_place ? 1 : stride, column = by_place ? stride : 1;
    if (numbers)
      kernels.multiply(a, {numbers + first, row, column}, nullptr, c, c_stride, m, n, k, panel);
    else
      kernels.multiply_bytes(a, {bytes + first, row, column, scales.data() + image, !by_place, by_place}, nullptr, c,
                             c_stride, m, n, k, panel);
  }
};

// Arguments: maps (images, channels * places), or as bytes, each image followed by its scale; and the parameters:
// embeddings, kernel, bias, scale, shift. Results: outputs (images, n), then, if they are wanted, y, the normalised
// inputs of tanh, and the inverse standard deviations.
ffi::Error compress(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  Arrays in(arguments), out(results);
  const Compression what(in);
  const bool kept = results.size() > 1;
  const long inputs = what.inputs(), n = what.outputs, stride = kept ? what.images : ROWS;  // of y
  float *const outputs = out.floats(), *const all_y = kept ? out.floats() : nullptr;
  float *const all_normal = kept ? out.floats() : nullptr, *const all_inverse_std = kept ? out.floats() : nullptr;
  share(pool, what.blocks(), [&](long block) {
    const long first = block * ROWS, images = std::min(ROWS, what.images - first);
    const long panel_size = PANEL * std::max(inputs, what.places);
    float* const panel = scratch(panel_size + (kept ? 0 : ROWS * (inputs + n + 1)));
    float* const y = kept ? all_y + first : panel + panel_size;
    float* const normal = kept ? all_normal + first * n : y + ROWS * inputs;
    float* const inverse_std = kept ? all_inverse_std + first : normal + ROWS * n;
    for (long channel = 0; channel < what.channels; ++channel)
      what.multiply({what.embedding + channel * what.places * what.embeddings, 1, what.embeddings}, first, channel,
                    true, y + channel * what.embeddings * stride, stride, what.embeddings, images, what.places, panel);
    kernels.multiply({y, 1, stride}, {what.kernel, n, 1}, what.bias, normal, n, images, n, inputs, panel);
    kernels.activate(what.nonlinearity, images, n, normal, inverse_std, outputs + first * n);
  });
  return ffi::Error::Success();
}

// The backward pass: by images down to y, then by columns of the kernel and by channels what needs all images.
struct Backward {
  static constexpr long CHANNELS = 16;  // of a piece

  const Compression what;
  const long inputs, n;
  const float *y, *normal, *inverse_std, *active, *grad;
  float *grad_embedding, *grad_kernel, *grad_bias, *grad_scale, *grad_shift;
  float *grad_z, *grad_y;   // of the dense layer's outputs, in place of `normal`; of its inputs
  std::vector<float> sums;  // (blocks, 3, n): of each block of images the gradients of scale, shift and bias

  Backward(Arrays& in, Arrays& out)
      : what(in), inputs(what.inputs()), n(what.outputs), y(in.floats()), normal(in.floats()),
        inverse_std(in.floats()), active(in.floats()), grad(in.floats()), grad_embedding(out.floats()),
        grad_kernel(out.floats()), grad_bias(out.floats()), grad_scale(out.floats()), grad_shift(out.floats()),
        grad_z(out.floats()), grad_y(out.floats()), sums(what.blocks() * 3 * n) {}

  void by_images(long block) {
    const long first = block * ROWS, images = std::min(ROWS, what.images - first);
    float *const panel = scratch((PANEL + ROWS) * n), *const grad_active = panel + PANEL * n;
    std::copy_n(grad + first * n, images * n, grad_active);
    kernels.deactivate(what.nonlinearity, images, n, normal + first * n, inverse_std + first, active + first * n,
                       grad_active, grad_z + first * n, sums.data() + block * 3 * n);
    kernels.multiply({what.kernel, n, 1}, {grad_z + first * n, 1, n}, nullptr, grad_y + first, what.images, inputs,
                     images, n, panel);
  }

  void by_columns(long column) {
    kernels.multiply({y, what.images, 1}, {grad_z + column, n, 1}, nullptr, grad_kernel + column, n, inputs,
                     std::min(COLUMNS, n - column), what.images, scratch(PANEL * what.images));
  }

  void by_channels(long first) {
    const long places = what.places, embeddings = what.embeddings, images = what.images;
    float *const panel = scratch(PANEL * images + embeddings * places), *const transposed = panel + PANEL * images;
    for (long channel = first; channel < std::min(first + CHANNELS, what.channels); ++channel) {
      what.multiply({grad_y + channel * embeddings * images, images, 1}, 0, channel, false, transposed, places,
                    embeddings, places, images, panel);
      float* const to = grad_embedding + channel * places * embeddings;
      for (long e = 0; e < embeddings; ++e)
        for (long place = 0; place < places; ++place) to[place * embeddings + e] = transposed[e * places + place];
    }
  }

  void add_up() {
    float* const totals[] = {grad_scale, grad_shift, grad_bias};
    for (long kind = 0; kind < 3; ++kind)
      for (long j = 0; j < n; ++j) {
        totals[kind][j] = 0;
        for (long block = 0; block < what.blocks(); ++block) totals[kind][j] += sums[(block * 3 + kind) * n + j];
      }
  }
};

// Arguments: those of `compress`, what it keeps, its outputs, and their gradient. Results: the gradients of the
// parameters, and in place of the normalised inputs of tanh, of the dense layer's outputs; and of y.
ffi::Error compress_backward(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  Arrays in(arguments), out(results);
  Backward work(in, out);
  const long blocks = work.what.blocks(), by_columns = (work.n + COLUMNS - 1) / COLUMNS;
  const long by_channels = (work.what.channels + Backward::CHANNELS - 1) / Backward::CHANNELS;
  std::atomic<long> blocks_done(0);
  share(pool, blocks + by_columns + by_channels, [&](long piece) {
    if (piece < blocks) {
      work.by_images(piece);
      ++blocks_done;
      return;
    }
    while (blocks_done < blocks) std::this_thread::yield();
    if (piece < blocks + by_columns) work.by_columns((piece - blocks) * COLUMNS);
    else work.by_channels((piece - blocks - by_columns) * Backward::CHANNELS);
  });
  work.add_up();
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rlpd

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_compress, rlpd::compress, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_compress_backward, rlpd::compress_backward, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets());
