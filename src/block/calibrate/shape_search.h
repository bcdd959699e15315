// SPDX-License-Identifier: Apache-2.0
// Which shape a head has (MInference, arXiv:2407.02490, its kernel-aware search): candidates of equal
// cost are tried on prompts, and the one that loses least attention is the head's.
//   cost   keys that a row block touches. A gathered cell costs within a tenth of one in a tile
//          (docs/decisions/011), so lines, blocks and windows are counted alike.
//   equal  shares: a candidate is as large as `keep` of the visible keys allows; for vertical-slash the
//          distances are as many as then fit beside its columns. What it came to is a share of the keys.
//          counts: the list of the official code, of candidates that were alike at 100,000 tokens.
//   lost   share of exact softmax on keys left out, mean over some rows spread over the call. The lines are
//          those that the last rows choose, as in use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "block/head_shapes.h"
#include "lacuna/result.h"
#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

class ShapeSearch {
 public:
  enum class Of : std::uint8_t { shares, counts };
  struct Settings {
    Of of = Of::shares;
    double keep = 0.2;  // of the visible keys
    Lines lines;
  };
  static constexpr std::int64_t kLeastKeys = 1024;  // with fewer, forced lines are most of what is kept
  static constexpr std::int32_t kRows = 16;         // judged per call

  // A head's shape as a profile has it: sizes are shares of the keys (of the blocks) or counts. Shares of
  // columns and distances are of those beyond the forced ones.
  struct Found {
    HeadKind kind = HeadKind::full;
    double columns = 0, reach = 0;  // as in HeadShape; an a-shape's sinks are a count always
    double lost = 0;
  };

  explicit ShapeSearch(Settings s) : settings_(s) {}
  // Passed over are calls of fewer keys, of fewer rows than 4 * last_rows, and those that came less than an
  // eighth further in their prompt than the last one judged: a long prompt costs a few more calls, not all.
  // An error if the layers differ.
  Status add(const AttentionView& x, Context& context);
  int layers() const { return static_cast<int>(layers_.size()); }
  int heads() const { return heads_; }
  std::int64_t longest() const { return longest_; }  // keys of the longest call, passed over or not
  bool any() const;                                  // some layer was judged
  // Nothing: this layer was never judged.
  std::optional<Found> found(int layer, int head) const;

  nlohmann::json save() const;
  Status load(const nlohmann::json& state);

 private:
  struct Tally {  // of one head and candidate, sums over calls
    double calls = 0, lost = 0, columns = 0, reach = 0;
  };
  struct Call;
  void judge(const Call& call, std::int32_t head, float* score, std::int64_t score_row, Tally* tally) const;

  Settings settings_;
  int heads_ = 0;
  std::int64_t longest_ = 0;
  std::vector<std::vector<Tally>> layers_;  // [heads][candidates], empty: never judged
  std::vector<std::int64_t> judged_;        // keys of the last call judged of this prompt, per layer
};

}  // namespace lacuna::block
