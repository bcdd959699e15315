// SPDX-License-Identifier: Apache-2.0
// AnchorAttention: a row's largest score lies nearly always among the first keys or near its own. Those two regions are
// kept, their largest scores are the anchor, and any other key that comes within `gap` of it is kept too:
//   a[u] = mean over the rows i of block u of max of s[i, j],  j < sink or j >= the segment's first key - margin
//   key j between the two regions is kept for a segment's rows  iff  mean query of u . k_j * scale + gap >= a[u]
//                                                                    for any block u of the segment
// A comparison, where others sort: keys are kept one by one, for `segment` rows together.
// Zhang et al., EMNLP 2025, arXiv:2505.23520.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "block/estimate/block_sums.h"
#include "block/estimate/key_scores.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Card kCard{
    .slug = "anchorattention",
    .title = "AnchorAttention",
    .paper = "arXiv:2505.23520",
    .family = "prefill",
    .summary = "Single keys that come within a gap of the largest score near the ends.",
    .notes =
        "The regions of the released code overlap in part and leave keys out in part; here sink, candidates and the rows' own "
        "region share out the keys exactly. How large the two regions are is not clear (the paper's picture has one "
        "block of first keys, the code 2048): sink and margin say. Segments count from the chunk's first row, and what is left at "
        "its end is a segment like any other (the released code computes it densely, which in chunks would be nearly all of "
        "it). The largest scores are made in a pass of their own and made again by the attention itself; the paper continues "
        "from a saved state. Preset auto keeps 54 % of the pairs of SmolLM2 135M at 7,000 tokens in micro-batches of 512 and loses "
        "0.6 %; on a busy processor without AMX the estimate took longer than the attention.",
    .keep_all = "anchorattention:gap=1000",
    .small = "anchorattention:gap=3:sink=16:block=32:segment=128",
    .granule = 128,
};

class AnchorAttention final : public Method {
 public:
  double gap = 12;
  std::int64_t sink = 64, block = 64, segment = 512, margin = 0;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(gap, "gap", -kMost, kMost, "how far below the anchor a score is kept, natural-log units; the ends: nothing, everything");
    v(sink, "sink", 1, 1 << 20, "first keys, always kept");
    v(block, "block", 16, 128, "rows whose mean is compared: 16, 32, 64 or 128");
    v(segment, "segment", 16, 1 << 20, "rows that keep the same keys, a multiple of block");
    v(margin, "margin", 0, std::int64_t{1} << 30, "keys before a segment, always kept");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = AnchorAttention();
    if (name == "paper") {
      sink = block = 128;
      segment = 16 * block;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 16 && block != 32 && block != 64 && block != 128)
      return bad_argument(fmt::format("anchorattention.block: got {}, need 16, 32, 64 or 128", block));
    if (segment % block != 0)
      return bad_argument(fmt::format("anchorattention.segment: got {}, need a multiple of block ({})", segment, block));
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("anchorattention: decode is dense");
    if (gap >= kMost) return dense_plan("anchorattention: any gap, which keeps everything");
    const Grid& g = x.grid;
    const std::int64_t last_begin = (g.n_rows - 1) / segment * segment;
    if (g.n_rows == 0 || local_of(g, last_begin) <= sink)
      return dense_plan(fmt::format("anchorattention: {} keys, sink and the last segment's own", g.n_keys));
    const auto row_blocks = static_cast<std::int32_t>((g.n_rows + block - 1) / block);
    std::vector<std::vector<Range>> kept(static_cast<std::size_t>(g.heads) * static_cast<std::size_t>(row_blocks));
    block::BlockSums queries;
    {
      const Timed timed(context, Verb::estimate);
      queries = block::row_sums(x, static_cast<std::int32_t>(block), context);
    }
    for (std::int64_t begin = 0; begin < g.n_rows; begin += segment) {
      const std::int64_t end = std::min<std::int64_t>(begin + segment, g.n_rows), local = local_of(g, begin);
      const std::uint8_t* near = nullptr;  // [heads][local], whether a key comes near the anchor
      if (local > sink) {
        const Timed timed(context, Verb::estimate);
        near = near_keys(x, queries, begin, end, local, anchors(x, begin, end, local, context), context);
      }
      const Timed timed(context, Verb::budget);
      context.threads().each(g.heads, [&](int h, int) {
        std::vector<Range> list;  // of all rows of the segment
        add(list, 0, std::min(sink, local));
        for (std::int64_t j = sink; near && j < local; ++j)
          if (near[h * local + j]) add(list, j, j + 1);
        for (std::int64_t row = begin; row < end; row += block) {
          std::vector<Range>& to = kept[static_cast<std::size_t>(h * row_blocks + row / block)];
          to = list;
          add(to, local, g.first_key + std::min(row + block, end));
        }
      });
    }
    return plan_of(join_ranges(g, static_cast<std::int32_t>(block), g.heads, kept));
  }

 private:
  static constexpr double kMost = 1000;

  // The first key of the region of a segment's own that begins with row `begin`.
  std::int64_t local_of(const Grid& g, std::int64_t begin) const { return std::max<std::int64_t>(0, g.first_key + begin - margin); }

  static void add(std::vector<Range>& list, std::int64_t begin, std::int64_t end) {
    if (begin >= end) return;
    if (!list.empty() && list.back().end == begin) list.back().end = static_cast<std::int32_t>(end);
    else list.push_back({static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)});
  }

  // Sums, over the rows of each row block of a segment, of their largest unscaled score: [heads][row blocks of the segment].
  std::vector<float> anchors(const AttentionView& x, std::int64_t begin, std::int64_t end, std::int64_t local, Context& context) const {
    constexpr std::int64_t kScores = 4 << 20;  // of a head at a time
    const std::int64_t from = local / 16 * 16, width = x.grid.first_key + end - from;
    const std::int64_t at_once = std::clamp(kScores / width / block, std::int64_t{1}, 512 / block) * block;
    const auto blocks = static_cast<std::size_t>((end - begin + block - 1) / block);
    std::vector<float> sum(static_cast<std::size_t>(x.grid.heads) * blocks, 0.0f);
    float* top = context.scratch_as<float>(block::kColumnSlot, static_cast<std::size_t>(x.grid.heads * at_once));
    for (std::int64_t row = begin; row < end; row += at_once) {
      AttentionView part = x;
      block::FewRows few{.q = x.q + row * x.q_row,
                         .q_head = x.q_head,
                         .q_row = x.q_row,
                         .rows = static_cast<std::int32_t>(std::min(at_once, end - row))};
      part.grid.n_keys = std::min(sink, x.grid.n_keys);
      block::for_key_scores(part, few, context, [&](int h, const float* score, std::int64_t score_row) {
        for (std::int32_t i = 0; i < few.rows; ++i) top[h * at_once + i] = block::max_of(score + i * score_row, part.grid.n_keys);
      });
      few.first_key = x.grid.first_key + row;
      few.from = from;
      part.grid.n_keys = few.first_key + few.rows;
      block::for_key_scores(part, few, context, [&](int h, const float* score, std::int64_t score_row) {
        for (std::int32_t i = 0; i < few.rows; ++i) {
          const float best = block::max_of(score + i * score_row + (local - from), few.first_key + i - local + 1);
          sum[static_cast<std::size_t>(h) * blocks + static_cast<std::size_t>((row - begin + i) / block)] += std::max(best, top[h * at_once + i]);
        }
      });
    }
    return sum;
  }

  // Whether key j in [sink, local) comes within the gap of the anchor of any row block of the segment: [heads][local]. A
  // score that is no number counts as near.
  const std::uint8_t* near_keys(const AttentionView& x, const block::BlockSums& queries, std::int64_t begin, std::int64_t end,
                                std::int64_t local, const std::vector<float>& anchor, Context& context) const {
    const auto size = static_cast<std::size_t>(x.grid.heads * local);
    auto* near = context.scratch_as<std::uint8_t>(block::kSetSlot, size);
    std::fill(near, near + size, std::uint8_t{0});
    AttentionView part = x;
    part.grid.n_keys = local;
    const std::int64_t blocks = (end - begin + block - 1) / block, first = begin / block;
    const std::int64_t at_once = std::max<std::int64_t>(1, (8 << 20) / (local * (x.grid.heads / x.hkv)));
    for (std::int64_t b = 0; b < blocks; b += at_once) {
      const block::FewRows few{.q = queries.of(0, first + b),
                               .q_head = queries.blocks() * queries.dim,
                               .q_row = queries.dim,
                               .rows = static_cast<std::int32_t>(std::min(at_once, blocks - b))};
      block::for_key_scores(part, few, context, [&](int h, const float* score, std::int64_t score_row) {
        std::uint8_t* to = near + h * local;
        for (std::int64_t u = 0; u < few.rows; ++u) {
          // Both sides are sums over the block's rows, before the scale.
          const auto rows = static_cast<double>(queries.size(first + b + u));
          const auto least = static_cast<float>(anchor[static_cast<std::size_t>(h * blocks + b + u)] - gap * rows / x.scale);
          const float* s = score + u * score_row;
          for (std::int64_t j = sink; j < local; ++j) to[j] |= !(s[j] < least);
        }
      });
    }
    return near;
  }
};

}  // namespace

LACUNA_METHOD(anchorattention, AnchorAttention)

}  // namespace lacuna::method
