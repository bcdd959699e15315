// SPDX-License-Identifier: Apache-2.0
// PowerAttention: key blocks at distances that are powers of two, a local window and sinks.
//   a row in block u keeps key block c  iff  c < sink blocks,  or  u - c < window blocks,  or  u - c is a power of two
// Any distance is a sum of powers of two: after d layers a row has heard from 2^d blocks, without gaps, at
// O(log N) blocks a row. Decode has the same blocks; they slide with the row, so the cache stays whole.
// arXiv:2503.03588 (2025).
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"needle", "a text between the powers of two is reached through other rows, in deeper layers"},
};

constexpr Card kCard{
    .slug = "powerattention",
    .title = "PowerAttention",
    .paper = "arXiv:2503.03588",
    .family = "fixed",
    .summary = "Key blocks at distances of powers of two, a local window and sinks.",
    .notes =
        "Made for models that were trained with it; any other loses much, as the audit shows. Blocks are counted from the "
        "sequence's first token, whatever the chunks. Window and sinks are given in tokens and kept in whole blocks; "
        "whether the paper's 10 blocks a row at 32,768 tokens count the row's own and the sink is not clear, here they are "
        "counted. full_layers = 2 is the paper's hybrid for hard retrieval, 2 dense layers of every 7: which two it does "
        "not say, here the first. Preset paper has the published block 256, window 5 blocks, 1 sink block; preset "
        "auto blocks of 64. Not here yet: training with the mask, and the measurements that need a model so trained.",
    .keep_all = "powerattention:window=1073741824",
    .small = "powerattention:block=16:window=32:sink=16",
    .exemptions = kExemptions,
};

class PowerAttention final : public Method {
 public:
  std::int64_t block = 64;
  std::int64_t window = 320;
  std::int64_t sink = 64;
  std::int64_t full_layers = 0;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(block, "block", 1, 1 << 20, "rows and keys of a block");
    v(window, "window", 1, std::int64_t{1} << 30, "newest keys of every row, always kept, in whole blocks");
    v(sink, "sink", 0, 1 << 20, "first keys, always kept, in whole blocks");
    v(full_layers, "full_layers", 0, kEvery, "layers of every seven that stay dense, the first of them");
  }
  Status preset(std::string_view name) override {
    if (name == "auto") *this = PowerAttention();
    if (name == "paper") {
      *this = PowerAttention();
      block = sink = 256;
      window = 5 * block;
    }
    return Method::preset(name);
  }

  Result<Plan> plan(const AttentionView& x, Context&) const override {
    const Grid& g = x.grid;
    if (x.layer % kEvery < full_layers) return dense_plan(fmt::format("powerattention: layer {} is a full one", x.layer));
    if (in_blocks(sink) + in_blocks(window) >= in_blocks(g.n_keys)) return dense_plan("powerattention: sink + window cover all keys");
    // Row blocks that lie within a block, wherever the chunk begins.
    const std::int64_t row_block = std::gcd(std::gcd(block, g.first_key), std::int64_t{128});
    std::vector<std::vector<Range>> kept(static_cast<std::size_t>((g.n_rows + row_block - 1) / row_block));
    for (std::size_t r = 0; r < kept.size(); ++r)
      kept[r] = keys_of((g.first_key + static_cast<std::int64_t>(r) * row_block) / block, g.n_keys);
    return plan_of(join_ranges(g, static_cast<std::int32_t>(row_block), 1, kept));
  }

 private:
  static constexpr std::int64_t kEvery = 7;

  std::int64_t in_blocks(std::int64_t tokens) const { return (tokens + block - 1) / block; }

  // What rows of block `own` keep, ascending: sinks, powers of two beyond the window from far to near, the window.
  std::vector<Range> keys_of(std::int64_t own, std::int64_t n_keys) const {
    std::vector<Range> kept;
    const auto keep = [&](std::int64_t first, std::int64_t end) {
      const auto begin = static_cast<std::int32_t>(std::max<std::int64_t>(first, 0) * block),
                 stop = static_cast<std::int32_t>(std::min(std::min(end, own + 1) * block, n_keys));
      if (begin >= stop) return;
      if (kept.empty() || kept.back().end < begin)
        kept.push_back({begin, stop});
      else
        kept.back().end = std::max(kept.back().end, stop);
    };
    keep(0, in_blocks(sink));
    std::int64_t distance = 1;
    while (distance * 2 <= own) distance *= 2;
    for (; distance >= in_blocks(window); distance /= 2) keep(own - distance, own - distance + 1);
    keep(own - in_blocks(window) + 1, own + 1);
    return kept;
  }
};

}  // namespace

LACUNA_METHOD(powerattention, PowerAttention)

}  // namespace lacuna::method
