// SPDX-License-Identifier: Apache-2.0
#include "base/machine.h"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>
#include <string>

namespace lacuna {
namespace {

constexpr int kArchReqXcompPerm = 0x1023;  // arch_prctl: ask for a dynamically enabled state
constexpr int kXfeatureTileData = 18;

Features detect() {
  Features f = 0;
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  // Clang 14 has no __builtin_cpu_supports("f16c"). That the system saves the registers, AVX2 answers for both.
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  if (f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) f |= kAvx2;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    f |= kAvx512;
  if (!(f & kAvx512)) return f;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  if (c & (1u << 11)) f |= kAvx512Vnni;
  if (d & (1u << 23)) f |= kAvx512Fp16;
  const bool amx_tile = d & (1u << 24), amx_bf16 = d & (1u << 22), amx_int8 = d & (1u << 25);
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5))) f |= kAvx512Bf16;
  if (amx_tile && amx_bf16 && (f & kAvx512Bf16) &&
      syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0) {
    f |= kAmxBf16;
    if (amx_int8) f |= kAmxInt8;
  }
  return f;
}

}  // namespace

Features detect_features() {
  static const Features features = detect();
  return features;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    // Hyper-threads of one core name the same siblings; where the kernel tells nothing, each counts.
    const std::string name = std::to_string(cpu);
    std::ifstream in("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(std::getline(in, siblings) ? siblings : "cpu " + name);
  }
  return std::max(1, static_cast<int>(cores.size()));
}

Features mask_features(Features have, const char* level, bool* known) {
  *known = true;
  if (!std::strcmp(level, "none")) return 0;
  if (!std::strcmp(level, "avx2")) return have & kAvx2;
  if (!std::strcmp(level, "avx512")) return have & (kAvx2 | kAvx512);
  if (!std::strcmp(level, "avx512bf16"))
    return have & (kAvx2 | kAvx512 | kAvx512Bf16 | kAvx512Vnni | kAvx512Fp16);
  *known = !std::strcmp(level, "amx") || !*level;
  return have;
}

}  // namespace lacuna
