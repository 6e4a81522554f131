// SPDX-License-Identifier: Apache-2.0
// Which of the kernels this processor can run.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace rlpd {
namespace {

const Kernels& choose_kernels() {
#if defined(__x86_64__)
  const char* const asked = std::getenv("RLPD_NATIVE");  // of a better processor, to try what others have
  const bool any = !asked || !*asked || *asked == '1';
  const bool avx2_only = asked && !std::strcmp(asked, "avx2");
  if (any && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) return avx512::kernels;
  if ((any || avx2_only) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kernels;
#endif
  return baseline::kernels;
}

}  // namespace

const Kernels& kernels = choose_kernels();

}  // namespace rlpd
