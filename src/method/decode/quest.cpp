// SPDX-License-Identifier: Apache-2.0
// Quest: a decoded token attends to the pages of keys whose best possible score is highest.
//   bound[h, p] = sum_d max(q_d mn[p, d], q_d mx[p, d])  >=  q . k  of every key of page p
//   kept: the `budget / page` pages of highest bound, at least three, and the page of the row's own key
// Tang et al., ICML 2024, arXiv:2406.10774.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "block/budget/top_count.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"paged", "pages are those of the cache's cells: cells in another order make other pages"},
    {"batch", "pages are those of the cache's cells: a page may hold keys of several sequences"},
    {"chunks", "a decoded token leaves out keys that the same token in a prompt sees: prefill is dense"},
    {"sparse", "prefill is dense, and the law looks at prefill; quest_test looks at decode"},
    {"gqa", "with share = on, a group chooses by the sum of its heads' bounds"},
    {"head_slice", "with share = on, a group chooses by the sum of its heads' bounds"},
};

constexpr Card kCard{
    .slug = "quest",
    .title = "Quest",
    .paper = "arXiv:2406.10774",
    .family = "decode",
    .summary = "Decode reads the pages of keys with the highest bounds on their scores.",
    .notes =
        "Pages are aligned runs of cells of the cache, so a page can hold cells of other sequences, or old ones: its bound "
        "is then looser, never wrong, and hidden cells stay hidden. The page of the row's own key is kept in addition to the "
        "budget. share = on takes one list per KV head, by the sum of the group's bounds (the official code has no GQA): its "
        "cells are read once for the group. Soft-caps and biases of the model do not enter the bounds. Preset paper: budget "
        "1024, share off. Preset auto: half of the keys, at least 256, share on; it loses 0.8 % on SmolLM2 135M at 7,000 "
        "tokens and 4 % on Gemma 3 270M at 26,000, an eighth loses 8 % and 28 % "
        "(bench/results/intel-xeon-amx/methods-*.txt). The first `layer_start` layers and all prefill are dense.",
    .shares_list_in_group = true,
    .keep_all = "quest:budget=1073741824",
    .small = "quest:budget=64:page=16:layer_start=0:share=off",
    .exemptions = kExemptions,
};

class Quest final : public Method {
 public:
  std::int64_t page = 16;
  std::int64_t budget = 0;
  double keep = 0.5;
  std::int64_t layer_start = 2;
  bool share = true;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(page, "page", 8, 64, "cells of a page: 8, 16, 32 or 64");
    v(budget, "budget", 0, std::int64_t{1} << 30, "keys read per token; 0 = keep * keys, at least 256");
    v(keep, "keep", 0.0, 1.0, "share of the keys read when budget = 0", true);
    v(layer_start, "layer_start", 0, 4096, "first layer that is not dense");
    v(share, "share", "one list per KV head, by the sum over its query heads");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = Quest();
    if (name == "paper") {
      budget = 1024;
      share = false;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (page != 8 && page != 16 && page != 32 && page != 64)
      return bad_argument(fmt::format("quest.page: got {}, need 8, 16, 32 or 64", page));
    if (budget > 0 && budget < 3 * page)
      return bad_argument(fmt::format("quest.budget: got {}, need 0 (by keep) or at least three pages ({})", budget, 3 * page));
    return {};
  }
  SideSpec side(int layer) const override {
    return layer < layer_start ? SideSpec{} : SideSpec{.page = static_cast<std::int32_t>(page)};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::prefill) return dense_plan("quest: prefill is dense");
    if (x.layer < layer_start) return dense_plan("quest: one of the first layers");
    const PageBounds& bounds = x.cells.side.pages;
    if (!bounds.data) return dense_plan("quest: this cache keeps no page bounds");
    const std::int64_t wanted = budget > 0 ? budget : std::max<std::int64_t>(256, static_cast<std::int64_t>(keep * static_cast<double>(x.grid.n_keys)));
    const std::int64_t count = std::max<std::int64_t>(3, wanted / page);
    if (count * page >= x.grid.n_keys) return dense_plan(fmt::format("quest: {} keys, within the budget", x.grid.n_keys));

    const auto pages = static_cast<std::int32_t>((x.cells.n + page - 1) / page);
    const std::int32_t lists = share ? x.hkv : x.grid.heads;
    op::PageScores::Args a;
    {
      const Timed timed(context, Verb::estimate);
      x.ask(a);
      a.pages = bounds;
      a.sum_group = share;
      a.score_row = tiles_of(pages) * kTileKeys;
      a.score_head = a.score_row;
      a.score = context.scratch_as<float>(block::kScoreSlot, static_cast<std::size_t>(lists * a.score_head));
      context.run<op::PageScores>(a);
    }
    const Timed timed(context, Verb::budget);
    const auto own = static_cast<std::int32_t>(x.cells.own / page);
    auto* work = context.scratch_as<float>(block::kWorkSlot, static_cast<std::size_t>(pages));
    auto* kept = context.scratch_as<std::int32_t>(block::kKeptSlot, static_cast<std::size_t>(pages) + 1);
    Ranges out{.of = Ranges::Of::cells, .heads = lists, .block_q = 1, .n_rows = 1, .n = x.cells.n, .row_ptr = {}, .ranges = {}};
    for (std::int32_t l = 0; l < lists; ++l) {
      float* score = a.score + l * a.score_head;
      score[own] = std::numeric_limits<float>::infinity();  // in, and one more than the budget
      const std::int32_t n = block::top_count(score, pages, 0, static_cast<std::int32_t>(std::min<std::int64_t>(count + 1, pages)), work, kept);
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
      for (std::int32_t i = 0; i < n; ++i) {
        if (score[kept[i]] == -std::numeric_limits<float>::infinity()) continue;  // nobody this row sees
        const auto begin = static_cast<std::int32_t>(kept[i] * page);
        const auto end = static_cast<std::int32_t>(std::min<std::int64_t>(begin + page, x.cells.n));
        if (static_cast<std::size_t>(out.row_ptr.back()) < out.ranges.size() && out.ranges.back().end == begin) out.ranges.back().end = end;
        else out.ranges.push_back({begin, end});
      }
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
    }
    return plan_of(std::move(out));
  }
};

}  // namespace

LACUNA_METHOD(quest, Quest)

}  // namespace lacuna::method
