// SPDX-License-Identifier: Apache-2.0
// What a method kept of the prompt, in a size that can be drawn: the density of each head of each layer, and for a few
// heads coarse maps of rows by keys. A map has one audited row for each part of the prompt, and per part of the keys:
//
//   kept   the share of the pairs visible there that were attended
//   mass   the row's exact attention probability that lies there
//   lost   the part of it that lies on pairs left out
//
// Exact scores are made in plain code (op/attend_ref.h), of at most kMostParts rows of kMostLayers x kHeads heads,
// however long the prompt.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "engine/lower.h"
#include "lacuna/parallel.h"
#include "op/attend.h"
#include "pattern/visibility.h"

namespace lacuna {

class Patterns {
 public:
  static constexpr int kMostParts = 32, kLeastParts = 4, kMostLayers = 3, kHeads = 2;

  // Keys of the whole prompt; parts are counted by it. Called before each call, since hosts announce it late.
  void announce(std::int64_t prompt_tokens);
  // A layer's call, or one sequence of it: visible pairs of one head; runs null: all of them were attended.
  void count_heads(int layer, std::int32_t hq, double visible_pairs, const LoweredRuns* runs);
  // Row `row` of a segment, attended as `args` and its runs say, in which it has number `args_row`. Ignored when its part of the
  // prompt has a row already, or the layer is none of those that are drawn.
  void add_row(int layer, const Visibility& visible, const Segment& s, std::int32_t row, const op::Attend::Args& args,
               std::int32_t args_row, ParallelFor& parallel);
  // Layers that are drawn: spread over those of [0, n_layers) that see the whole prompt.
  void choose_layers(int n_layers, const std::vector<bool>& windowed);

  // {"parts", "density": [layer][head] or null, "maps": [{"layer", "head", "kept", "mass", "lost"}]}; docs/compare.md.
  nlohmann::json as_json() const;

 private:
  struct Map {
    std::vector<std::vector<double>> kept, mass, lost;  // [part of the rows][part of the keys]; empty: no row yet
  };
  struct Heads {
    double visible = 0;
    std::vector<double> attended;
  };
  void draw(Map& map, std::size_t part, const Visibility& visible, const Segment& s, std::int32_t row, const op::Attend::Args& args,
            std::int32_t args_row, int head) const;

  std::int64_t tokens_ = 0;
  std::size_t parts_ = 0;
  std::vector<int> layers_;                // that are drawn
  std::vector<Heads> density_;             // by layer
  std::map<std::pair<int, int>, Map> maps_;  // by layer and head
};

}  // namespace lacuna
