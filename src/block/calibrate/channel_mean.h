// SPDX-License-Identifier: Apache-2.0
// Which channels of a head carry its products: the mean over tokens of |x_d|, after the rotation, where
// x is a token's query, its key, or the product q_d * k_d of the same token.
//   order[layer][head] = channels by that mean, the largest first (a tie: the lower channel first)
// Sums run over everything seen (the published script for `qk` overwrites them: only its last text
// counts). Yang et al., Double Sparsity, arXiv:2408.07092, step 1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "kv/raw.h"
#include "lacuna/result.h"
#include "pattern/pattern.h"

namespace lacuna::block {

class ChannelMean {
 public:
  enum class Of : std::uint8_t { query, key, product };
  enum class Per : std::uint8_t {
    query_head,  // a key counts for each query head of its group
    kv_head,     // the queries of a group are averaged
  };
  // The rows of one sequence in one call of one layer; row i's own key is grid.first_key + i.
  struct Rows {
    Grid grid;
    int hkv = 1, dk = 0;
    const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
    std::int64_t q_head = 0, q_row = 0;
    RawKeys k;
  };

  ChannelMean(Of of, Per per) : of_(of), per_(per) {}

  // An error if the layers differ in shape.
  Status add(int layer, const Rows& rows);
  int layers() const { return static_cast<int>(layers_.size()); }
  int heads() const { return heads_; }
  int channels() const { return channels_; }
  std::int64_t tokens() const;  // seen by the layer that saw the fewest; 0: a layer saw none
  double mean(int layer, int head, int channel) const;
  std::vector<std::int32_t> order(int layer, int head) const;

  // The sums, for going on later. load() takes what save() of an equal object gave, checked.
  nlohmann::json save() const;
  Status load(const nlohmann::json& state);

 private:
  struct Layer {
    std::int64_t tokens = 0;
    std::vector<double> sum;  // [heads][channels]
  };
  Of of_;
  Per per_;
  int heads_ = 0, channels_ = 0;
  std::vector<Layer> layers_;
};

// Channel numbers between the two layouts of the rotation, whose pairs are (c, c + D/2) when half-split
// and (2i, 2i + 1) when interleaved; D = rotated channels, even. Channels beyond D stay.
constexpr std::int32_t to_interleaved(std::int32_t channel, std::int32_t rotated) {
  return channel >= rotated ? channel : 2 * channel % rotated + 2 * channel / rotated;
}
constexpr std::int32_t to_half_split(std::int32_t channel, std::int32_t rotated) {
  return channel >= rotated ? channel : channel / 2 + channel % 2 * (rotated / 2);
}

}  // namespace lacuna::block
