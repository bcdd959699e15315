// SPDX-License-Identifier: Apache-2.0
#include "engine/pick.h"

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr struct {
  Features bit;
  const char* name;
} kNames[] = {
    {kAvx2, "AVX2"},           {kAvx512, "AVX-512"},   {kAvx512Bf16, "AVX512-BF16"}, {kAvx512Vnni, "AVX512-VNNI"},
    {kAvx512Fp16, "AVX512-FP16"}, {kAmxBf16, "AMX-BF16"}, {kAmxInt8, "AMX-INT8"},
};

}  // namespace

std::string describe(Features features) {
  std::string out;
  for (const auto& [bit, name] : kNames)
    if (features & bit) {
      if (!out.empty()) out += ' ';
      out += name;
    }
  return out.empty() ? "no AVX2" : out;
}

std::string missing_features(Features have, Features needs) {
  const Features missing = needs & ~have;
  return missing ? fmt::format("needs {}", describe(missing)) : "";
}

}  // namespace lacuna
