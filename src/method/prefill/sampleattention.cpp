// SPDX-License-Identifier: Apache-2.0
// SampleAttention: the last rows of every segment of a prompt stand for the segment. Their exact attention,
// summed by blocks of keys and by blocks of distances, says which columns and which diagonals its rows keep:
//   the fewest column blocks that carry `mass` of it, and the fewest diagonal blocks that carry `slash_mass`
// Zhu et al., MLSys 2025, arXiv:2406.15486.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "block/block_set.h"
#include "block/budget/top_mass.h"
#include "block/estimate/last_rows.h"
#include "block/line_blocks.h"
#include "block/row_view.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"causal", "a segment's last rows choose the lines of all its rows: what they see decides what earlier rows keep"},
    {"chunks", "segments count from a chunk's first row, so other chunks have other segments"},
};

constexpr Card kCard{
    .slug = "sampleattention",
    .title = "SampleAttention",
    .paper = "arXiv:2406.15486",
    .family = "prefill",
    .summary = "Columns and diagonals by mass, sampled at the end of every segment.",
    .notes =
        "The second version of the paper: segments with the rows at their end as sample, columns and diagonals in blocks. (The "
        "first took rows at a stride over the whole prompt, columns alone, and a window of 8 % of it.) The paper leaves "
        "open how long segments and samples are and tunes both masses by model; there is no official code. Segments count "
        "from a chunk's first row; a rest shorter than twice last_rows joins the segment before it, and a chunk shorter "
        "than four times last_rows is dense. The two directions are chosen each by itself, and a pair is kept if either "
        "wants it; blocks of own keys are always kept. A diagonal block covers all key blocks that its distances touch. "
        "Preset paper: both masses 0.95, blocks of 128, samples of 64 rows. Preset auto aims at 1 % of lost mass: on SmolLM2 "
        "135M at 7,000 tokens it keeps 56 % of the pairs, and both masses at 0.95 lose 3 %.",
    .reads_prompt_end = true,
    .selects = "global",
    .keep_all = "sampleattention:mass=1:slash_mass=1",
    .small = "sampleattention:mass=0.4:slash_mass=0.2:block=32:last_rows=16:segment=128",
    .granule = 128,
    .exemptions = kExemptions,
};

class SampleAttention final : public Method {
 public:
  double mass = 0.987, slash_mass = 0.987;
  std::int64_t segment = 1024, last_rows = 32, block = 64;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mass, "mass", 0.0, 1.0, "share of the sampled attention that column blocks cover", true);
    v(slash_mass, "slash_mass", 0.0, 1.0, "share of it that diagonal blocks cover", true);
    v(segment, "segment", 64, 1 << 20, "rows that keep the same lines");
    v(last_rows, "last_rows", 1, 4096, "rows at a segment's end whose attention is the sample");
    v(block, "block", 16, 128, "rows and keys of a block: 16, 32, 64 or 128");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = SampleAttention();
    if (name == "paper") {
      mass = slash_mass = 0.95;
      block = 128;
      last_rows = 64;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 16 && block != 32 && block != 64 && block != 128)
      return bad_argument(fmt::format("sampleattention.block: got {}, need 16, 32, 64 or 128", block));
    if (segment % block != 0)
      return bad_argument(fmt::format("sampleattention.segment: got {}, need a multiple of block ({})", segment, block));
    if (last_rows > segment)
      return bad_argument(fmt::format("sampleattention.last_rows: got {}, need at most segment ({})", last_rows, segment));
    return {};
  }

  std::string estimate() const override { return fmt::format("segment={}:last_rows={}:block={}", segment, last_rows, block); }
  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (mass >= 1 && slash_mass >= 1 && x.phase != Phase::decode)
      return dense_plan("sampleattention: both masses are 1, which keeps everything");
    return plan_each(x, std::vector<const Method*>(static_cast<std::size_t>(x.grid.heads), this), context);
  }
  Result<Plan> plan_each(const AttentionView& x, std::span<const Method* const> of, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("sampleattention: decode is dense");
    if (x.grid.n_rows < 4 * last_rows)
      return dense_plan(fmt::format("sampleattention: a chunk of {} rows, fewer than 4 * last_rows: the sample would cost more "
                                    "than it saves", x.grid.n_rows));
    if (x.grid.n_keys <= 2 * block) return dense_plan(fmt::format("sampleattention: {} keys, two blocks", x.grid.n_keys));
    const Grid& g = x.grid;
    const std::int64_t key_blocks = (g.n_keys + block - 1) / block, row_blocks = (g.n_rows + block - 1) / block;
    std::vector<std::uint8_t> wanted;
    for (const Method* m : of) wanted.push_back(m != nullptr);
    const auto size = static_cast<std::size_t>(g.heads * row_blocks * key_blocks);
    auto* kept = context.scratch_as<std::uint8_t>(block::kSetSlot, size);
    std::fill(kept, kept + size, std::uint8_t{0});
    for (std::int32_t begin = 0, end = 0; begin < g.n_rows; begin = end) {
      end = end_of_segment(g, begin);
      const AttentionView part = block::rows_of(x, begin, end);
      block::LineSums sums;
      {
        const Timed timed(context, Verb::estimate);
        sums = block::last_rows(part, static_cast<std::int32_t>(last_rows), context, wanted);
      }
      const Timed timed(context, Verb::budget);
      context.threads().each(g.heads, [&](int h, int) {
        if (const auto* head = static_cast<const SampleAttention*>(of[static_cast<std::size_t>(h)]))
          head->keep_lines(part.grid, sums, h, kept + (h * row_blocks + begin / block) * key_blocks, key_blocks);
      });
    }
    const Timed timed(context, Verb::budget);
    return plan_of(block::to_block_map(g, static_cast<std::int32_t>(block), static_cast<std::int32_t>(block), kept));
  }

 private:
  std::int32_t end_of_segment(const Grid& g, std::int32_t begin) const {
    const std::int64_t end = begin + segment;
    return g.n_rows - end < 2 * last_rows ? g.n_rows : static_cast<std::int32_t>(end);
  }

  // The kept blocks of a segment's row blocks, of head h; `set`: its first row block, `stride` bytes from one to the next.
  void keep_lines(const Grid& g, const block::LineSums& sums, std::int32_t h, std::uint8_t* set, std::int64_t stride) const {
    const std::int64_t n = g.n_keys;
    const auto blocks = static_cast<std::int32_t>((n + block - 1) / block);
    const auto size = static_cast<std::size_t>(blocks);
    std::vector<float> total(size), work(size);
    std::vector<std::int32_t> columns(size), diagonals(size);
    const auto choose = [&](const float* line, double share, std::vector<std::int32_t>& list) {
      block::block_totals(line + h * n, n, block, total.data());
      list.resize(static_cast<std::size_t>(
          block::top_mass(total.data(), blocks, 0, blocks, share, block::TopMass::reach, work.data(), list.data())));
    };
    choose(sums.vertical, mass, columns);
    choose(sums.slash, slash_mass, diagonals);
    for (std::int64_t row = 0; row < g.n_rows; row += block, set += stride) {
      const std::int64_t first = g.first_key + row, last = g.first_key + std::min<std::int64_t>(row + block, g.n_rows) - 1;
      for (const std::int32_t c : columns) set[c] = 1;
      for (const std::int32_t d : diagonals) block::keep_diagonal(set, block, first, last, d);
      for (std::int64_t k = first / block; k <= last / block; ++k) set[k] = 1;
    }
  }
};

}  // namespace

LACUNA_METHOD(sampleattention, SampleAttention)

}  // namespace lacuna::method
