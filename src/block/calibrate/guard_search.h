// SPDX-License-Identifier: Apache-2.0
// Search of a head's bounds for guarded blocks (block/budget/guarded_blocks.h), as SpargeAttn tunes them
// (arXiv:2502.18137): on one input, the similarity on a grid and with each the smallest mass whose output
// errs by less than l1; of these the sparsest; then the smallest pv_skip that errs by less than pv_l1.
// Over several inputs, the similarities are binned, and the bin of the highest total sparsity answers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "block/budget/guarded_blocks.h"
#include "lacuna/result.h"

namespace lacuna::block {

struct GuardFound {
  double similarity = 1, mass = 1, pv_skip = 50;
  double sparsity = 0;  // of the key blocks of the sampled row blocks
};

struct GuardSearch {
  std::int32_t block_q = 64, block_k = 64;
  std::int64_t sinks = 0;
  double l1 = 0.07, pv_l1 = 0.08;  // relative: sum |o - o'| / sum |o|
};
// Of one call of one layer, query head h. Looks at kSearchRows rows of each of kSearchBlocks row blocks,
// spread over the call.
constexpr std::int32_t kSearchBlocks = 2, kSearchRows = 16;
GuardFound search_guard(const GuardSearch& how, const AttentionView& x, const PooledScores& scores,
                        const SelfSimilarity& alike, std::int32_t h);

// What was found on the inputs so far, for all layers and heads.
class GuardRecords {
 public:
  static constexpr std::size_t kMostInputs = 64;  // of a layer; later ones are not searched

  // An error if the layers differ in their heads.
  Status add(int layer, std::span<const GuardFound> heads);
  bool full(int layer) const { return inputs(layer) >= kMostInputs; }
  std::size_t inputs(int layer) const;  // searched
  int layers() const { return static_cast<int>(layers_.size()); }
  int heads() const { return heads_; }
  // A head whose mean sparsity is at most 0.1 stays dense: similarity 1, mass 1.
  GuardFound choose(int layer, int head) const;

  nlohmann::json save() const;
  Status load(const nlohmann::json& state);

 private:
  int heads_ = 0;
  std::vector<std::vector<GuardFound>> layers_;  // [inputs][heads] of each
};

}  // namespace lacuna::block
