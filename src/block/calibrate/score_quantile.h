// SPDX-License-Identifier: Apache-2.0
// The score above which a wanted number of a row's keys lie, found over many rows: by layer, query head and band of row
// lengths. What a comparison can take the place of a search with (Top-Theta, arXiv:2502.08363).
//   t = the (count + 1)-th largest of  scale q . k_j  over the n keys that the row sees: count of them lie above, but for ties
//   threshold[layer][head][band] = mean of t + sigma * its standard deviation
// A band is a quarter of an octave of lengths. Rows with no more keys than are wanted tell nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include <nlohmann/json.hpp>

#include "lacuna/result.h"
#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

class ScoreQuantile {
 public:
  struct Band {
    std::int64_t rows = 0;
    double length = 0;              // sum over the rows of how many keys they see
    std::vector<double> sum, square;  // [heads] of t and of t^2
    double mean_length() const { return length / static_cast<double>(rows); }
    double threshold(int head, double sigma) const;
  };
  // How many keys shall pass, of a layer and a row of n keys.
  using Count = std::function<std::int64_t(int layer, std::int64_t n)>;

  explicit ScoreQuantile(Count count) : count_(std::move(count)) {}

  // Looks at up to `rows` rows of the call, spread evenly. An error if heads differ from those before.
  Status add(const AttentionView& x, std::int32_t rows, Context& context);
  int layers() const { return static_cast<int>(layers_.size()); }
  int heads() const { return heads_; }
  std::int64_t longest() const { return longest_; }                             // of the rows seen
  const std::map<int, Band>& bands(int layer) const { return layers_[static_cast<std::size_t>(layer)]; }  // in order of length

  // The sums, for going on later. load() takes what save() gave, checked.
  nlohmann::json save() const;
  Status load(const nlohmann::json& state);

 private:
  Count count_;
  int heads_ = 0;
  std::int64_t longest_ = 0;
  std::vector<std::map<int, Band>> layers_;
};

}  // namespace lacuna::block
