// SPDX-License-Identifier: Apache-2.0
// TunedTable: which method each query head takes, by length band and layer: the `data` of a profile of tuned.
//   {"methods": ["dense", "streamingllm:sink=32:window=128", ...],
//    "bands": [1024, 2048, ...],                     the most keys of the calls of each
//    "choice": [bands][layers][heads]}               numbers in `methods`; null for a layer: dense
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lacuna/result.h"
#include "method/profile.h"

namespace lacuna {

struct TunedTable {
  std::vector<std::string> methods;   // specs; the first is dense
  std::vector<std::int64_t> bands;    // ascending
  int layers = 0, heads = 0;
  std::vector<std::vector<std::uint8_t>> choice;  // [bands][layers], by head; empty: dense

  // By head; empty: dense, or the layer is not in it.
  std::span<const std::uint8_t> at(std::size_t band, int layer) const {
    if (band >= bands.size() || layer < 0 || layer >= layers) return {};
    return choice[band * static_cast<std::size_t>(layers) + static_cast<std::size_t>(layer)];
  }
};

nlohmann::json as_json(const TunedTable& table);
// Of a profile, checked; its layers and heads must be those of the profile's own model.
Result<TunedTable> tuned_table(const Profile& profile);

}  // namespace lacuna
