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

const kernel::Kernel<op::Attend>* find_attend(std::string_view name) {
  for (const auto* k : kernel::attend_list)
    if (name == k->name) return k;
  return nullptr;
}

op::Attend::Args plain_call(PackFormat format, Dtype kv, Precision precision, int rows, int head_dim) {
  op::Attend::Args a;
  a.hq = a.hkv = 1;
  a.dk = a.dv = head_dim;
  a.n_rows = rows;
  a.n_cells = 1024;
  a.k_type = a.v_type = kv;
  a.precision = precision;
  a.runs.block_q = 64;
  a.runs.n_rows = rows;
  a.runs.n_cells = 1024;
  a.packed_k = a.packed_v = {nullptr, format, 1, head_dim, 1024};
  return a;
}

bool taken_in_place(op::Attend::Args args, Features have, int workers, const kernel::Kernel<op::Attend>* forced) {
  if (!is_quantised(args.k_type) && !is_quantised(args.v_type)) return false;
  args.packed_k = args.packed_v = {};
  const auto* k = pick(kernel::attend_list, args, have, workers, forced ? forced->name : "");
  return k && (k == forced || k->pack != PackFormat::none);
}

std::string missing_features(Features have, Features needs) {
  const Features missing = needs & ~have;
  return missing ? fmt::format("needs {}", describe(missing)) : "";
}

}  // namespace lacuna
