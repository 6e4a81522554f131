// SPDX-License-Identifier: Apache-2.0
// What JAX calls (rl/native.py): the first stages of a ResNet-10, forward only, and averages over squares of places.
//
// Each image is a piece of work, so what becomes of it depends on no other. Within it, the groups of GroupNorm are
// convolved, normalised and brought to where the next layer reads them one after the other, while they are in the cache.
#include <cmath>
#include <optional>

#include "operation.h"

namespace rlpd {
namespace {

constexpr long GROUPS = 4, STEM = 7, PARAMETERS = 9;  // parameters: arrays of a stage, those of the first layer counted
constexpr float EPSILON = 1e-5f, MEAN[] = {0.485f, 0.456f, 0.406f}, STD[] = {0.229f, 0.224f, 0.225f};  // encoders.py's

long rounded_up(long n) { return (n + PLACES - 1) / PLACES * PLACES; }

// A square that moves over maps and sees all of it, with zeros around.
struct Window {
  long size, height, width, plane;  // the outputs; from one map to the next
  Grid grid;                        // of the maps

  Window(long size, long stride, long map_height, long map_width, bool same = true)
      : size(size), height((map_height + stride - 1) / stride), width((map_width + stride - 1) / stride) {
    auto before = [&](long map, long outputs) {
      return same ? std::max((outputs - 1) * stride + size - map, 0L) / 2 : size / 2;
    };
    // In steps of 1 the zeros after a row are those before the next one.
    const long row = width + (stride == 1 ? size / 2 : (size - 1) / stride);
    grid = {stride, before(map_height, height), before(map_width, width), row, (height + (size - 1) / stride) * row + 1};
    plane = stride * stride * grid.phase;
  }

  long places() const { return rounded_up(height * grid.row); }  // of an output, with those between its rows

  long at(long r, long q) const {
    const long s = grid.stride;
    return (r % s * s + q % s) * grid.phase + r / s * grid.row + q / s;
  }

  long centre() const { return at(grid.top, grid.left); }  // where the maps begin

  // Where it reads for the first place, in the order of kernels (size, size, channels, filters).
  std::vector<long> taps(long channels) const {
    std::vector<long> all;
    for (long r = 0; r < size; ++r)
      for (long q = 0; q < size; ++q)
        for (long channel = 0; channel < channels; ++channel) all.push_back(channel * plane + at(r, q));
    return all;
  }
};

// A convolution and GroupNorm.
struct Layer {
  Window window;
  long filters;
  std::vector<long> taps;
  const float *kernel, *scale = nullptr, *shift = nullptr;

  Layer(const Window& window, const ffi::AnyBuffer& weights)
      : window(window), filters(weights.dimensions().back()), kernel(weights.typed_data<float>()) {
    const long channels = *(weights.dimensions().end() - 2);
    if (*(weights.dimensions().end() - 4) == window.size) taps = window.taps(channels);
    else for (long i = 0; i < channels; ++i) taps.push_back(i * window.plane + window.centre());  // a kernel of 1 x 1
  }

  void take_norm(Arrays& in) { shift = in.floats(), scale = in.floats(); }

  long group() const { return filters / GROUPS; }
  long places() const { return window.places(); }

  // The outputs of a group, side by side, and what normalises each of them.
  void compute(long group, const float* in, float* out, Affine* normalise) const {
    const long count = this->group(), first = group * count;
    kernels.convolve(kernel, filters, first, count, in, taps.data(), taps.size(), out, places());
    double sum = 0, squares = 0;
    for (long i = 0; i < count; ++i) {
      float sums[2];
      kernels.moments(out + i * places(), window.height, window.width, window.grid.row, sums);
      sum += sums[0], squares += sums[1];
    }
    const double numbers = count * window.height * window.width, mean = sum / numbers;
    const double inverse_std = 1 / std::sqrt(std::max(squares / numbers - mean * mean, 0.0) + EPSILON);
    for (long i = 0; i < count; ++i) {
      const double slope = inverse_std * scale[first + i];
      normalise[i] = {static_cast<float>(slope), static_cast<float>(shift[first + i] - mean * slope)};
    }
  }
};

// Two layers beside a shortcut, which is projected in all stages but the first.
struct Block {
  Layer first, second;
  std::optional<Layer> projection;

  // By the names of the parameters: in a dictionary of JAX they are sorted.
  Block(Arrays& in, const Window& window, bool projected)
      : first(window, in.take()), second({3, 1, window.height, window.width}, in.take()) {
    first.take_norm(in), second.take_norm(in);
    if (!projected) return;
    projection.emplace(window, in.take());
    projection->take_norm(in);
  }

  // From `in`, in the grid of the first layer, to another grid. `inner`: for the grid of the second; `maps`: for two
  // groups of outputs.
  void compute(const float* in, float* inner, float* maps, const Window& next, float* out) const {
    const Window& window = first.window;
    const long count = first.group(), places = first.places();
    const long height = second.window.height, width = second.window.width;
    std::vector<Affine> normalise(count), shortcut(count, Affine{1, 0});
    std::fill_n(inner, first.filters * second.window.plane, 0.f);
    for (long group = 0; group < GROUPS; ++group) {
      first.compute(group, in, maps, normalise.data());
      for (long i = 0; i < count; ++i)
        kernels.rectify(normalise[i], maps + i * places, window.grid.row, {}, nullptr, 0, height, width,
                        second.window.grid, inner + (group * count + i) * second.window.plane);
    }
    std::fill_n(out, first.filters * next.plane, 0.f);
    for (long group = 0; group < GROUPS; ++group) {
      second.compute(group, inner, maps, normalise.data());
      float* const beside = maps + count * second.places();
      if (projection) projection->compute(group, in, beside, shortcut.data());
      for (long i = 0; i < count; ++i) {
        const long channel = group * count + i;
        const float* const other = projection ? beside + i * places : in + channel * window.plane + window.centre();
        kernels.rectify(normalise[i], maps + i * second.places(), second.window.grid.row, shortcut[i], other,
                        window.grid.row, height, width, next.grid, out + channel * next.plane);
      }
    }
  }
};

struct Backbone {
  const uint8_t* pixels;  // (images, height, width, colours)
  long images, height, width, colours;
  Window window, pooling;  // of the first layer, and after it
  std::vector<Block> blocks;
  std::optional<Layer> stem;
  long averaged, grid = 0, maps = 0;  // side of the squares at the end; floats for any grid, for two groups of outputs
  float seen[3][256];                 // what the first layer sees of a pixel

  // Arguments: images (..., h, w, 1 or 3), parameters by their names.
  Backbone(Arrays& in, long stages, long averaged) : Backbone(in.take(), averaged) {
    for (long stage = 0; stage < stages; ++stage)
      blocks.emplace_back(in, stage == 0 ? Window(3, 1, pooling.height, pooling.width) : after(blocks.back(), 3, 2), stage);
    stem.emplace(window, in.take());
    stem->take_norm(in);
    grid = std::max(3 * window.plane, pooling.plane), maps = stem->group() * stem->places() + pooling.places();
    for (const Block& block : blocks) {
      const Layer &first = block.first, &second = block.second;
      const long channels = first.taps.size() / (first.window.size * first.window.size);
      grid = std::max({grid, channels * first.window.plane, first.filters * second.window.plane});
      maps = std::max(maps, first.group() * (first.places() + second.places()));
    }
    grid = rounded_up(grid + PLACES);  // so many are read from the last place on
  }

  Window last() const { return after(blocks.back(), 1, 1); }
  long memory() const { return 3 * grid + maps; }

  void see(long image, float* memory, float* out) const {
    float *input = memory + grid, *output = input + grid, *const maps = output + grid;
    read(image, output);
    begin(output, memory, maps, input);
    for (size_t i = 0; i < blocks.size(); ++i, std::swap(input, output))
      blocks[i].compute(input, memory, maps, i + 1 < blocks.size() ? blocks[i + 1].first.window : last(), output);
    average(input, out);
  }

 private:
  Backbone(const ffi::AnyBuffer& all, long averaged)
      : pixels(all.typed_data<uint8_t>()), height(*(all.dimensions().end() - 3)),
        width(*(all.dimensions().end() - 2)), colours(all.dimensions().back()), window(STEM, 2, height, width, false),
        pooling(3, 2, window.height, window.width), averaged(averaged) {
    images = all.element_count() / (height * width * colours);
    for (long channel = 0; channel < 3; ++channel)
      for (long value = 0; value < 256; ++value)
        seen[channel][value] = (value / 255.f - MEAN[channel]) / STD[channel];
  }

  static Window after(const Block& block, long size, long stride) {
    return {size, stride, block.second.window.height, block.second.window.width};
  }

  void read(long image, float* to) const {
    const uint8_t* pixel = pixels + image * height * width * colours;
    const Grid& grid = window.grid;
    std::fill_n(to, 3 * window.plane, 0.f);
    for (long y = 0; y < height; ++y) {
      float* const row = to + window.at(y + grid.top, 0);
      for (long x = 0; x < width; ++x, pixel += colours) {
        float* const place = row + (x + grid.left) % 2 * grid.phase + (x + grid.left) / 2;
        for (long channel = 0; channel < 3; ++channel)
          place[channel * window.plane] = seen[channel][pixel[colours == 3 ? channel : 0]];
      }
    }
  }

  // The first layer, of which each square's largest is kept.
  void begin(const float* in, float* inner, float* maps, float* out) const {
    const Window& next = blocks[0].first.window;
    const long count = stem->group();
    const std::vector<long> taps = pooling.taps(1);
    float* const largest = maps + count * stem->places();
    std::vector<Affine> normalise(count);
    std::fill_n(inner, pooling.plane, 0.f);
    std::fill_n(out, stem->filters * next.plane, 0.f);
    for (long group = 0; group < GROUPS; ++group) {
      stem->compute(group, in, maps, normalise.data());
      for (long i = 0; i < count; ++i) {
        kernels.rectify(normalise[i], maps + i * stem->places(), window.grid.row, {}, nullptr, 0, window.height,
                        window.width, pooling.grid, inner);
        kernels.pool(inner, taps.data(), taps.size(), largest, pooling.places());
        kernels.rectify({1, 0}, largest, pooling.grid.row, {}, nullptr, 0, pooling.height, pooling.width, next.grid,
                        out + (group * count + i) * next.plane);
      }
    }
  }

  void average(const float* in, float* out) const {
    const Window from = last(), to(averaged, averaged, from.height, from.width);
    for (long channel = 0; channel < blocks.back().first.filters; ++channel, in += from.plane)
      for (long y = 0; y < to.height; ++y)
        for (long x = 0; x < to.width; ++x) {
          const long bottom = std::min((y + 1) * averaged - to.grid.top, from.height);
          const long right = std::min((x + 1) * averaged - to.grid.left, from.width);
          float sum = 0;
          long places = 0;
          for (long r = std::max(y * averaged - to.grid.top, 0L); r < bottom; ++r)
            for (long q = std::max(x * averaged - to.grid.left, 0L); q < right; ++q, ++places)
              sum += in[r * from.grid.row + q];
          *out++ = sum / places;
        }
  }
};

// Arguments: those of Backbone. Results: maps (..., channels, places).
ffi::Error see(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, int averaged) {
  Arrays in(arguments), out(results);
  const Backbone backbone(in, arguments.size() / PARAMETERS, averaged);
  const ffi::AnyBuffer& maps = out.take();
  const long size = maps.element_count() / std::max(backbone.images, 1L);
  share(pool, backbone.images, [&](long image) {
    backbone.see(image, scratch(backbone.memory()), maps.typed_data<float>() + image * size);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rlpd

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_see, rlpd::see, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int>("averaged"));
