// SPDX-License-Identifier: Apache-2.0
// ProxyAttn: heads resemble one another, so the mean of a group of heads, a proxy, is scored token by token and ranks the
// key blocks for all of them; how many blocks a head takes of that ranking is its own matter:
//   S[p, u, b] = max over sampled rows i of row block u and keys j of block b of  (mean query of proxy p)_i . (mean key)_j
//   n[h, u]    = the fewest key blocks that carry `mass` of  softmax over keys of (mean query of head h's block u) . k_j
//   head h keeps for row block u the n[h, u] blocks of largest S, the first keys' blocks and those of its own keys
// ICLR 2026, arXiv:2509.24745.
#include <algorithm>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "block/block_set.h"
#include "block/budget/top_count.h"
#include "block/budget/top_mass.h"
#include "block/estimate/block_sums.h"
#include "block/estimate/head_means.h"
#include "block/estimate/key_scores.h"
#include "block/line_blocks.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"gqa", "the heads of a group share their ranking"},
    {"head_slice", "the heads of a group share their ranking"},
};

constexpr Card kCard{
    .slug = "proxyattn",
    .title = "ProxyAttn",
    .paper = "arXiv:2509.24745",
    .family = "prefill",
    .summary = "Key blocks ranked by a mean of heads, as many as each head needs.",
    .notes =
        "Written from descriptions of the paper, without its code: groups, mass, stride and block are parameters, and the "
        "estimate of a head's own count is the cheapest that fits (the mean query of a row block against all keys). Rows "
        "are sampled, the last of each block always; keys are not, since a skipped heavy key is what max pooling is for. "
        "head_group = 0 makes one proxy for the query heads of each KV head. Other groups are rounded down to what shares out the "
        "model's heads: a divisor of the heads of a KV head, or whole KV heads, whose keys are then averaged as well, anew in "
        "every call. Ranking needs no softmax, which would change no order. Row blocks count from the chunk's first row.",
    .keep_all = "proxyattn:mass=1",
    .small = "proxyattn:mass=0.4:stride=4:block=64",
    .granule = 128,
    .exemptions = kExemptions,
};

class ProxyAttn final : public Method {
 public:
  double mass = 0.95;
  std::int64_t head_group = 0, stride = 4, block = 64, sink = 1;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mass, "mass", 0.0, 1.0, "share of a head's own estimate that its number of blocks covers; 1 = everything", true);
    v(head_group, "head_group", 0, 1024, "neighbouring query heads of a proxy; 0 = those of a KV head");
    v(stride, "stride", 1, 128, "of so many rows one is scored");
    v(block, "block", 64, 128, "rows and keys of a block: 64 or 128");
    v(sink, "sink", 0, std::int64_t{1} << 20, "first keys, always kept, in whole blocks");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = ProxyAttn();
    if (name == "paper") {
      head_group = 8;
      block = 128;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 64 && block != 128) return bad_argument(fmt::format("proxyattn.block: got {}, need 64 or 128", block));
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("proxyattn: decode is dense");
    if (mass >= 1) return dense_plan("proxyattn: mass = 1 keeps everything");
    if (x.grid.n_keys < 2 * block)
      return dense_plan(fmt::format("proxyattn: {} keys, fewer than two blocks of {}", x.grid.n_keys, block));
    const Grid& g = x.grid;
    const auto b = static_cast<std::int32_t>(block);
    const std::int32_t row_blocks = (g.n_rows + b - 1) / b, key_blocks = static_cast<std::int32_t>((g.n_keys + b - 1) / b);
    const std::int32_t together = block::heads_together(x, head_group);
    const float* ranking = nullptr;
    const std::int32_t* wanted = nullptr;
    {
      const Timed timed(context, Verb::estimate);
      wanted = counts(x, row_blocks, key_blocks, context);
      ranking = proxy_scores(x, together, row_blocks, key_blocks, context);
    }
    const Timed timed(context, Verb::budget);
    const std::size_t lists = static_cast<std::size_t>(g.heads) * static_cast<std::size_t>(row_blocks);
    auto* kept = context.scratch_as<std::uint8_t>(block::kSetSlot, lists * static_cast<std::size_t>(key_blocks));
    const std::int64_t sinks = (sink + block - 1) / block;
    context.threads().each(g.heads * row_blocks, [&](int task, int) {
      const std::int32_t h = task / row_blocks, u = task % row_blocks;
      const auto seen = static_cast<std::int32_t>(causal_blocks(g, b, b, u));
      std::vector<float> work(static_cast<std::size_t>(seen));
      std::vector<std::int32_t> list(static_cast<std::size_t>(seen));
      const std::int32_t n = block::top_count(ranking + (std::int64_t{h / together} * row_blocks + u) * key_blocks, seen, 0,
                                              wanted[task], work.data(), list.data());
      std::uint8_t* set = kept + std::int64_t{task} * key_blocks;
      std::fill(set, set + key_blocks, std::uint8_t{0});
      for (std::int32_t i = 0; i < n; ++i) set[list[static_cast<std::size_t>(i)]] = 1;
      for (std::int64_t k = 0; k < std::min<std::int64_t>(sinks, seen); ++k) set[k] = 1;
      for (std::int64_t k = first_own_block(g, b, b, u); k < seen; ++k) set[k] = 1;
    });
    return plan_of(block::to_block_map(g, b, b, kept));
  }

 private:
  static constexpr std::int64_t kScores = 8 << 20;  // floats of scores of a KV head's group at a time

  // How many key blocks each head takes for each row block: [heads][row blocks].
  const std::int32_t* counts(const AttentionView& x, std::int32_t row_blocks, std::int32_t key_blocks, Context& context) const {
    const auto b = static_cast<std::int32_t>(block);
    const block::BlockSums queries = block::row_sums(x, b, context);
    auto* out = context.scratch_as<std::int32_t>(block::kCountSlot, static_cast<std::size_t>(x.grid.heads * row_blocks));
    const auto at_once = static_cast<std::int32_t>(std::max<std::int64_t>(1, kScores / (x.grid.n_keys * (x.grid.heads / x.hkv))));
    for (std::int32_t first = 0; first < row_blocks; first += at_once) {
      const block::FewRows few{.q = queries.of(0, first),
                               .q_head = std::int64_t{row_blocks} * x.dk,
                               .q_row = x.dk,
                               .rows = std::min(at_once, row_blocks - first)};
      block::for_key_scores(x, few, context, [&](int h, float* score, std::int64_t score_row) {
        std::vector<float> sum(static_cast<std::size_t>(key_blocks)), work(sum.size());
        std::vector<std::int32_t> list(sum.size());
        for (std::int32_t u = first; u < first + few.rows; ++u, score += score_row) {
          const std::int64_t seen = x.grid.first_key + std::int64_t{u} * b + queries.size(u);
          block::softmax(score, seen, x.scale / static_cast<float>(queries.size(u)));
          block::block_totals(score, seen, b, sum.data());
          const auto blocks = static_cast<std::int32_t>((seen + b - 1) / b);
          out[h * row_blocks + u] = block::top_mass(sum.data(), blocks, 0, blocks, mass, block::TopMass::reach, work.data(), list.data());
        }
      });
    }
    return out;
  }

  // S of the proxies: [proxies][row blocks][key blocks]. What is no number counts as the largest.
  const float* proxy_scores(const AttentionView& x, std::int32_t together, std::int32_t row_blocks, std::int32_t key_blocks,
                            Context& context) const {
    // The sampled rows: of each row block its last, and every `stride`-th before it.
    const auto step = static_cast<std::int32_t>(stride), height = static_cast<std::int32_t>(block);
    std::vector<std::int32_t> rows, first_of{0};
    for (std::int32_t begin = 0; begin < x.grid.n_rows; begin += height) {
      const std::int32_t end = std::min(begin + height, x.grid.n_rows);
      for (std::int32_t row = begin + (end - 1 - begin) % step; row < end; row += step) rows.push_back(row);
      first_of.push_back(static_cast<std::int32_t>(rows.size()));
    }
    block::HeadMeans means(x, together, context);
    AttentionView proxies = means.view();
    const float* q = means.queries(rows);
    const auto n_rows = static_cast<std::int64_t>(rows.size());
    const std::int32_t heads = proxies.grid.heads;
    float* best = context.scratch_as<float>(block::kMassSlot, static_cast<std::size_t>(std::int64_t{heads} * row_blocks * key_blocks));
    for (std::int32_t u = 0, end; u < row_blocks; u = end) {
      // As many row blocks at a time as there is room for, few enough not to score much that none of their rows sees.
      const std::int64_t room = kScores / (x.grid.n_keys * (heads / proxies.hkv));
      end = u + 1;
      while (end < row_blocks && end < u + 4 && first_of[static_cast<std::size_t>(end) + 1] - first_of[static_cast<std::size_t>(u)] <= room) ++end;
      const std::int32_t from = first_of[static_cast<std::size_t>(u)], to = first_of[static_cast<std::size_t>(end)];
      const block::FewRows few{.q = q + std::int64_t{from} * x.dk, .q_head = n_rows * x.dk, .q_row = x.dk, .rows = to - from};
      proxies.grid.n_keys = x.grid.first_key + rows[static_cast<std::size_t>(to - 1)] + 1;
      block::for_key_scores(proxies, few, context, [&](int p, const float* score, std::int64_t score_row) {
        float* out = best + (std::int64_t{p} * row_blocks + u) * key_blocks;
        std::fill(out, out + std::int64_t{end - u} * key_blocks, -std::numeric_limits<float>::infinity());
        for (std::int32_t r = from, v = u; r < to; ++r, score += score_row) {
          while (r >= first_of[static_cast<std::size_t>(v) + 1]) ++v;
          float* row = out + std::int64_t{v - u} * key_blocks;
          const std::int64_t seen = x.grid.first_key + rows[static_cast<std::size_t>(r)] + 1;
          for (std::int64_t k = 0; k * block < seen; ++k) {
            const float top = block::max_of(score + k * block, std::min(block, seen - k * block));
            row[k] = top == top ? std::max(row[k], top) : std::numeric_limits<float>::infinity();
          }
        }
      });
    }
    return best;
  }
};

}  // namespace

LACUNA_METHOD(proxyattn, ProxyAttn)

}  // namespace lacuna::method
