// SPDX-License-Identifier: Apache-2.0
// What JAX calls (rl/native.py): an ensemble of dense networks forward and backward, and a step of Adam.
//
// A network is hidden layers, each dense, LayerNorm (optional), nonlinearity; then one linear layer. Arrays of
// parameters have the member of the ensemble as first axis; all members see the same inputs (rows, n). The work is cut
// into pieces by member and block of rows, or of columns. Sums never depend on how many threads there are, or on which
// is first: results are the same each time.
#include "operation.h"

namespace rlpd {
namespace {

constexpr long NUMBERS = 16384;  // of a piece of Adam's work

struct Layer {
  long inputs, outputs;
  const float *kernel, *bias, *scale, *shift;  // of the first member; the last two are nullptr without LayerNorm

  const float* kernel_of(long member) const { return kernel + member * inputs * outputs; }
  const float* bias_of(long member) const { return bias + member * outputs; }
  Nonlinearity nonlinearity_of(long member, Activation activation) const {
    if (!scale) return {nullptr, nullptr, activation};
    return {scale + member * outputs, shift + member * outputs, activation};
  }
};

// What the backward pass needs of a hidden layer, of all members: normalised inputs of the nonlinearity, its outputs,
// and with LayerNorm the inverse standard deviations.
struct Residual { float *normal, *active, *inverse_std; };

struct Network {
  Activation activation;
  long members = 0, rows = 0, widest = 0;
  const float* x = nullptr;
  std::vector<Layer> layers;  // the last one is linear

  Network(Arrays& in, int activation, bool norm, long hidden) : activation(static_cast<Activation>(activation)) {
    const ffi::AnyBuffer& inputs = in.take();
    rows = inputs.dimensions()[0], x = inputs.typed_data<float>();
    for (long i = 0; i <= hidden; ++i) {
      const ffi::AnyBuffer& kernel = in.take();
      members = kernel.dimensions()[0];
      Layer layer = {kernel.dimensions()[1], kernel.dimensions()[2], kernel.typed_data<float>(), in.floats()};
      if (norm && i < hidden) layer.scale = in.floats(), layer.shift = in.floats();
      widest = std::max({widest, layer.inputs, layer.outputs});
      layers.push_back(layer);
    }
  }

  long hidden() const { return static_cast<long>(layers.size()) - 1; }
  long blocks() const { return (rows + ROWS - 1) / ROWS; }
};

struct Piece { long member, layer, part; };
constexpr long BY_ROWS = -1;  // in place of the layer: all layers, for a block of rows

// The pieces by rows of members `first` to `last`, in an order in which one thread tends to get all of a member: then
// its parameters come to the cache of one core only.
void add_rows(std::vector<Piece>& pieces, const Network& network, long first, long last) {
  for (long block = 0; block < network.blocks(); ++block)
    for (long member = first; member < last; ++member) pieces.push_back({member, BY_ROWS, block});
}

// Arguments: inputs, then for each hidden layer kernel, bias and with LayerNorm scale and shift, then kernel and bias.
// Results: outputs (members, rows, n), then, if they are wanted, the residuals of each hidden layer.
ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, int activation,
                   bool norm) {
  Arrays in(arguments), out(results);
  const Network network(in, activation, norm, (arguments.size() - 3) / (norm ? 4 : 2));
  float* outputs = out.floats();
  std::vector<Residual> residuals(results.size() > 1 ? network.hidden() : 0);
  for (Residual& r : residuals) r = {out.floats(), out.floats(), norm ? out.floats() : nullptr};

  std::vector<Piece> pieces;
  const long team = std::max<long>(pool.num_threads(), 1);
  for (long member = 0; member < network.members; member += team)
    add_rows(pieces, network, member, std::min(member + team, network.members));
  share(pool, pieces.size(), [&](long index) {
    const long member = pieces[index].member, first = pieces[index].part * ROWS;
    const long rows = std::min(ROWS, network.rows - first), row = member * network.rows + first;
    float* const panel = scratch(PANEL * network.widest + ROWS * (2 * network.widest + 1));
    float* const kept = panel + PANEL * network.widest;  // here, unless there is somebody who wants the residuals
    const float* x = network.x + first * network.layers[0].inputs;
    for (long i = 0; i < network.hidden(); ++i) {
      const Layer& layer = network.layers[i];
      const long n = layer.outputs;
      Residual r = {kept, kept + ROWS * network.widest, kept + 2 * ROWS * network.widest};
      if (!residuals.empty())
        r = {residuals[i].normal + row * n, residuals[i].active + row * n, residuals[i].inverse_std + row};
      kernels.multiply({x, layer.inputs, 1}, {layer.kernel_of(member), n, 1}, layer.bias_of(member), r.normal, n, rows,
                       n, layer.inputs, panel);
      kernels.activate(layer.nonlinearity_of(member, network.activation), rows, n, r.normal, r.inverse_std, r.active);
      x = r.active;
    }
    const Layer& last = network.layers.back();
    kernels.multiply({x, last.inputs, 1}, {last.kernel_of(member), last.outputs, 1}, last.bias_of(member),
                     outputs + row * last.outputs, last.outputs, rows, last.outputs, last.inputs, panel);
  });
  return ffi::Error::Success();
}

// The backward pass. By rows: down through the layers. By columns: the gradients of a layer's parameters, which need
// all rows of their member.
struct Backward {
  struct Gradient { float *kernel, *bias, *scale, *shift; };

  const Network network;
  const long hidden, blocks;
  std::vector<Residual> residuals;
  std::vector<Gradient> gradients;   // of the parameters, by layer; none if they are not wanted
  float* grad_inputs = nullptr;      // (members, rows, n), if it is wanted
  std::vector<float*> grad_outputs;  // of each layer before its nonlinearity
  std::vector<float> sums;           // of each block of rows: see sums_of

  Backward(Arrays& in, Arrays& out, int activation, bool norm, bool params_wanted, bool inputs_wanted)
      : network(in, activation, norm, (in.all.size() - 4) / (norm ? 7 : 4)),
        hidden(network.hidden()), blocks(network.blocks()), residuals(hidden),
        gradients(params_wanted ? hidden + 1 : 0), sums(network.members * blocks * hidden * 3 * network.widest) {
    for (Residual& r : residuals) r = {in.floats(), in.floats(), norm ? in.floats() : nullptr};
    for (Gradient& g : gradients) {
      g = {out.floats(), out.floats(), nullptr, nullptr};
      if (norm && &g != &gradients.back()) g.scale = out.floats(), g.shift = out.floats();
    }
    if (inputs_wanted) grad_inputs = out.floats();
    for (long i = 0; i < hidden; ++i) grad_outputs.push_back(out.floats());
    grad_outputs.push_back(in.floats());
  }

  // The gradients of scale, shift and bias (3, n) from one block of rows.
  float* sums_of(long member, long block, long layer) {
    return sums.data() + ((member * blocks + block) * hidden + layer) * 3 * network.widest;
  }

  void by_rows(long member, long block) {
    const long first = block * ROWS, rows = std::min(ROWS, network.rows - first), row = member * network.rows + first;
    float* const panel = scratch((PANEL + ROWS) * network.widest);
    float* const grad_active = panel + PANEL * network.widest;
    for (long i = hidden; i >= (grad_inputs ? 0 : 1); --i) {
      const Layer& layer = network.layers[i];
      const long n = layer.inputs;
      float* const grad = i > 0 ? grad_active : grad_inputs + row * n;
      kernels.multiply({grad_outputs[i] + row * layer.outputs, layer.outputs, 1},
                       {layer.kernel_of(member), 1, layer.outputs}, nullptr, grad, n, rows, n, layer.outputs, panel);
      if (i == 0) break;
      const Residual& r = residuals[i - 1];
      kernels.deactivate(network.layers[i - 1].nonlinearity_of(member, network.activation), rows, n, r.normal + row * n,
                         r.inverse_std + row, r.active + row * n, grad, grad_outputs[i - 1] + row * n,
                         sums_of(member, block, i - 1));
    }
  }

  void by_columns(long member, long i, long column) {
    const Layer& layer = network.layers[i];
    const Gradient& gradient = gradients[i];
    const long n = layer.outputs, columns = std::min(COLUMNS, n - column), row = member * network.rows;
    const float* x = i > 0 ? residuals[i - 1].active + row * layer.inputs : network.x;
    const float* grad = grad_outputs[i] + row * n;
    kernels.multiply({x, 1, layer.inputs}, {grad + column, n, 1}, nullptr,
                     gradient.kernel + member * layer.inputs * n + column, n, layer.inputs, columns, network.rows,
                     scratch(PANEL * network.rows));
    for (long j = column; j < column + columns; ++j) {
      float scale = 0, shift = 0, bias = 0;
      for (long block = 0; i < hidden && block < blocks; ++block) {
        const float* sum = sums_of(member, block, i);
        scale += sum[j], shift += sum[n + j], bias += sum[2 * n + j];
      }
      for (long q = 0; i == hidden && q < network.rows; ++q) bias += grad[q * n + j];
      gradient.bias[member * n + j] = bias;
      if (gradient.scale) gradient.scale[member * n + j] = scale, gradient.shift[member * n + j] = shift;
    }
  }
};

// Arguments: those of `forward`, the residuals, and the gradient of the outputs. Results: the gradients of the
// parameters if they are wanted, of the inputs (members, rows, n) if those are, and, in place of `normal`, of each
// hidden layer before its nonlinearity.
ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, int activation,
                    bool norm, bool params_wanted, bool inputs_wanted) {
  Arrays in(arguments), out(results);
  Backward work(in, out, activation, norm, params_wanted, inputs_wanted);
  std::vector<Piece> pieces;
  const long members = work.network.members, team = std::max<long>(pool.num_threads(), 1);
  for (long next = 0; next < members + team; next += team) {  // columns after the next rows: nobody has to wait long
    if (next < members) add_rows(pieces, work.network, next, std::min(next + team, members));
    for (long member = std::max(next - team, 0L); params_wanted && member < std::min(next, members); ++member)
      for (long i = work.hidden; i >= 0; --i)
        for (long column = 0; column < work.network.layers[i].outputs; column += COLUMNS)
          pieces.push_back({member, i, column});
  }
  std::vector<std::atomic<long>> blocks_done(members);
  share(pool, pieces.size(), [&](long index) {
    const auto [member, layer, part] = pieces[index];
    if (layer == BY_ROWS) {
      work.by_rows(member, part);
      ++blocks_done[member];
    } else {
      while (blocks_done[member] < work.blocks) std::this_thread::yield();
      work.by_columns(member, layer, part);
    }
  });
  return ffi::Error::Success();
}

// Arguments: corrections (2), 1 / (1 - beta ^ step); then for each array of parameters its gradient, itself, its first
// and second moment, and with tau > 0 its target. Results: for each array all but the gradient, in place.
ffi::Error adam(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, float learning_rate,
                float tau) {
  Arrays in(arguments), out(results);
  const float* corrections = in.floats();
  const Adam how = {learning_rate, corrections[0], corrections[1], tau};
  const int kinds = tau > 0 ? 4 : 3;
  struct Piece { long size; const float *grad, *in[4]; float* out[4]; };
  std::vector<Piece> pieces;
  while (in.taken < in.all.size()) {
    const long size = in.all[in.taken].element_count();
    Piece whole = {size, in.floats(), {}, {}};
    for (int kind = 0; kind < kinds; ++kind) whole.in[kind] = in.floats(), whole.out[kind] = out.floats();
    for (long first = 0; first < size; first += NUMBERS) {
      Piece piece = {std::min(NUMBERS, size - first), whole.grad + first, {}, {}};
      for (int kind = 0; kind < kinds; ++kind)
        piece.in[kind] = whole.in[kind] + first, piece.out[kind] = whole.out[kind] + first;
      pieces.push_back(piece);
    }
  }
  share(pool, pieces.size(), [&](long i) {
    kernels.adam(how, pieces[i].size, pieces[i].grad, pieces[i].in, pieces[i].out);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rlpd

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_forward, rlpd::forward, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int>("activation").Attr<bool>("norm"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_backward, rlpd::backward, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int>("activation").Attr<bool>("norm")
    .Attr<bool>("params_wanted").Attr<bool>("inputs_wanted"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(rlpd_adam, rlpd::adam, xla::ffi::Ffi::Bind()
    .Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<float>("learning_rate").Attr<float>("tau"));
