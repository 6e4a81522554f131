// SPDX-License-Identifier: Apache-2.0
// What operations have in common: their arrays, their memory, and how they share their work.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace rlpd {

namespace ffi = xla::ffi;

constexpr long ROWS = 128;     // of a piece: enough to make up for packing the weights
constexpr long COLUMNS = 128;  // of a piece of a gradient

// Do all pieces, in this thread and in those of XLA's pool that are free. Nobody ever waits for a piece that has not
// been begun, so this thread may be one of the pool. Pieces are begun in their order.
template <typename Work>
void share(ffi::ThreadPool& pool, long pieces, const Work& work) {
  struct Progress {
    std::atomic<long> begun{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto progress = std::make_shared<Progress>();
  auto take = [progress, pieces, &work] {  // a thread that comes too late finds nothing left, and no `work` either
    for (long piece; (piece = progress->begun++) < pieces;) {
      work(piece);
      if (++progress->done < pieces) continue;
      std::lock_guard lock(progress->mutex);
      progress->finished.notify_one();
    }
  };
  for (long helpers = std::min<long>(pool.num_threads(), pieces) - 1; helpers > 0; --helpers)
    pool.Schedule(decltype(take)(take));
  take();
  for (int i = 0; i < 100 && progress->done < pieces; ++i) std::this_thread::yield();  // mostly that is enough
  std::unique_lock lock(progress->mutex);
  progress->finished.wait(lock, [&] { return progress->done == pieces; });
}

// Memory of this thread for `size` floats: the same at each call, so that it stays in the core's cache.
inline float* scratch(long size) {
  struct alignas(64) Line { float values[16]; };
  static thread_local std::vector<Line> lines;
  if (static_cast<long>(lines.size()) * 16 < size) lines.resize(size / 16 + 1);
  return lines.data()->values;
}

// The arrays of a call, taken one after the other.
struct Arrays {
  std::vector<ffi::AnyBuffer> all;
  size_t taken = 0;

  explicit Arrays(const ffi::RemainingArgs& arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) all.push_back(*arguments.get<ffi::AnyBuffer>(i));
  }
  explicit Arrays(const ffi::RemainingRets& results) {
    for (size_t i = 0; i < results.size(); ++i) all.push_back(**results.get<ffi::AnyBuffer>(i));
  }
  const ffi::AnyBuffer& take() { return all[taken++]; }
  float* floats() { return take().typed_data<float>(); }
};

}  // namespace rlpd
