// SPDX-License-Identifier: Apache-2.0
// TrialSums: what methods were seen to keep and lose in trial rows (Calibrator::trials), by length band, layer,
// method and query head. lacuna tune chooses by it.
//
// A band holds the calls of more keys than the band before it allows and of at most its own: what a head needs
// changes with the length, so each band is chosen for by itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lacuna/result.h"
#include "method/calibrator.h"

namespace lacuna {

struct TrialSums {
  // Of one band and layer.
  struct Cell {
    std::int64_t rows = 0;
    double pairs = 0;                // that the rows of one head see
    std::vector<double> kept, lost;  // [methods][heads]: of those pairs; lost mass; sums over rows
  };
  std::vector<std::string> methods;  // specs
  std::vector<std::int64_t> bands;   // the most keys of each, ascending
  int layers = 0, heads = 0;         // seen so far
  std::int64_t longest = 0;          // keys of the longest call
  std::vector<Cell> cells;           // [bands][layers]

  const Cell& cell(std::size_t band, int layer) const { return cells[band * static_cast<std::size_t>(layers) + static_cast<std::size_t>(layer)]; }
  std::size_t at(std::size_t method, int head) const { return method * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head); }
  // Calls beyond the last band are left out.
  void add(const Trial& trial);
};

nlohmann::json as_json(const TrialSums& sums);
// What lay on a disk, checked.
Result<TrialSums> trial_sums(const nlohmann::json& value, std::string_view where);

// The band that calls of so many keys belong to; bands.size(): beyond all.
std::size_t band_of(const std::vector<std::int64_t>& bands, std::int64_t keys);
// A list of bands, read and checked: 1 to 64, ascending.
Result<std::vector<std::int64_t>> read_bands(const nlohmann::json& value, std::string_view where);

}  // namespace lacuna
