// SPDX-License-Identifier: Apache-2.0
// SpargeAttn: blocks of rows and keys whose vectors point one way are scored by their means, and of the
// key blocks those that carry the mass are kept; blocks that are not alike within are always needed.
//   sim(block) = |sum of its unit vectors|^2 / n^2          trusted iff sim > similarity
//   p[u, b]    = softmax over trusted b of  mean q_u . mean k_b * scale
//   kept       = the largest p whose sum stays within `mass`, or the best `keep` of the blocks;
//                all blocks that are not trusted; everything for a row block that is not
// Inside attend, a tile of keys whose weights have become too small is left out (pv_skip, op/attend.h).
// Zhang et al., ICML 2025, arXiv:2502.18137.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "block/block_set.h"
#include "block/budget/guarded_blocks.h"
#include "block/calibrate/guard_search.h"
#include "block/estimate/pooled.h"
#include "block/estimate/self_similarity.h"
#include "block/slots.h"
#include "method/calibrator.h"
#include "method/method.h"
#include "method/profile.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"causal", "with smooth = on, the mean that is taken off the keys is of all keys of a call; with mode = keep, the "
               "number of blocks is a share of all key blocks of a call"},
    {"chunks", "a chunk knows the mean, and the number, of the keys up to its end only"},
};

constexpr Card kCard{
    .slug = "spargeattn",
    .title = "SpargeAttn",
    .paper = "arXiv:2502.18137",
    .family = "prefill",
    .summary = "Blocks by the mass of their means, guarded by how alike they are within.",
    .notes =
        "Row blocks count from a chunk's first row. Blocks of a row block's own keys are always kept: the official "
        "code forces none, and where row blocks are larger than key blocks a row could be left without any key. The "
        "sum of mode = mass counts trusted blocks only, and keeps one block fewer than the usual rule would, as the "
        "official code does; mode = keep takes its share of all key blocks of the call, so that early rows keep "
        "everything. The mean over tokens is taken off the keys (smooth) only where it matters, in their "
        "self-similarity: scores lose nothing by it. pv_skip: tiles have 32 keys, the groups of rows that leave one out "
        "together are the kernel's (6 to 32 rows), the running maximum is that before the tile, and full tiles alone are "
        "left out, never a list's last; what is left out counts in the lost mass and not in the density. The 8-bit "
        "products of the official kernels are not here: keys and queries have the kernel's precision. A chunk of fewer "
        "than 32 rows is dense: it would look at all keys to save little. `lacuna calibrate spargeattn` takes each "
        "micro-batch of 1024 keys or more as an input, up to 64 of a layer, and of it 16 rows of each of 2 row blocks; "
        "sparsity is that of blocks, a part is skipped as by a group of one row, and the mean that keeps a head dense is "
        "over all inputs. Images and video (Hilbert order) have no place in this host. Preset paper: mass 0.98, "
        "similarity 0.6, pv_skip 50; the official code recommends mode=keep:keep=0.5:similarity=-0.1 instead. "
        "Preset auto: mass 0.998; at 7,000 tokens of SmolLM2 135M it keeps 69 % and loses 1.1 %, mass 0.995 63 % and 1.8 %, "
        "which loses 0.5 % on Gemma 3 270M at 26,000 and keeps 99 % (bench/results/intel-xeon-amx/methods-*.txt).",
    .selects = "global",
    .keep_all = "spargeattn:mass=1:pv_skip=1000",
    .small = "spargeattn:mass=0.7:similarity=-1:block=16:row_block=32",
    .granule = 128,
    .exemptions = kExemptions,
};

constexpr std::int32_t kLeastRows = 32;
constexpr double kNoSkip = 1000;

// Finds the bounds of every head while a text is read densely.
class Tuner final : public Calibrator {
 public:
  Tuner(const block::GuardSearch& how, bool smooth) : how_(how), smooth_(smooth) {}
  Status observe(const AttentionView& x, Context& context) override {
    layers_ = std::max<std::int64_t>({layers_, x.n_layers, x.layer + 1});
    most_keys_ = std::max(most_keys_, x.grid.n_keys);
    if (x.grid.n_keys < kLeastKeys || x.grid.n_rows < how_.block_q || found_.full(x.layer)) return {};
    const auto keys = block::key_sums(x, how_.block_k, context);
    const auto alike = block::self_similarity(x, how_.block_q, keys, smooth_, context);
    const auto scores = block::pooled_scores(x, alike.row_sums, keys, context);
    std::vector<block::GuardFound> heads(static_cast<std::size_t>(x.grid.heads));
    context.threads().each(x.grid.heads, [&](int h, int) {
      heads[static_cast<std::size_t>(h)] = block::search_guard(how_, x, scores, alike, h);
    });
    return found_.add(x.layer, heads);
  }
  nlohmann::json save() const override { return {{"layers", layers_}, {"most_keys", most_keys_}, {"found", found_.save()}}; }
  Status load(const nlohmann::json& state) override {
    auto layers = member(state, "state", "layers"), keys = member(state, "state", "most_keys"), found = member(state, "state", "found");
    for (const auto* part : {&layers, &keys, &found})
      if (!part->ok()) return part->error();
    auto n = as_int(*layers.value(), "state.layers", 0, 4096), most = as_int(*keys.value(), "state.most_keys", 0, std::int64_t{1} << 30);
    for (const auto* figure : {&n, &most})
      if (!figure->ok()) return figure->error();
    LACUNA_CHECK(found_.load(*found.value()));
    layers_ = n.value();
    most_keys_ = most.value();
    return {};
  }
  int prompt_tokens() const override { return 4 * kLeastKeys; }
  Result<nlohmann::json> finish() const override {
    if (found_.heads() == 0)
      return bad_argument(fmt::format("text too short: got {} tokens at once, need {} or more, in micro-batches of {} or more",
                                      most_keys_, kLeastKeys, how_.block_q));
    nlohmann::json similarity = nlohmann::json::array(), mass = similarity, pv_skip = similarity;
    for (int l = 0; l < layers_; ++l)  // one that no input was long enough for stays dense
      for (int h = 0; h < found_.heads(); ++h) {
        const block::GuardFound f = found_.choose(l, h);
        similarity.push_back(f.similarity);
        mass.push_back(f.mass);
        pv_skip.push_back(f.mass < 1 ? f.pv_skip : kNoSkip);
      }
    return nlohmann::json{{"layers", layers_}, {"heads", found_.heads()}, {"block", how_.block_k},
                          {"row_block", how_.block_q}, {"smooth", smooth_ ? 1 : 0}, {"similarity", similarity},
                          {"mass", mass}, {"pv_skip", pv_skip}};
  }

 private:
  static constexpr int kLeastKeys = 1024;
  block::GuardSearch how_;
  bool smooth_;
  std::int64_t layers_ = 0, most_keys_ = 0;  // of the model; of a call
  block::GuardRecords found_;
};

bool is_block(std::int64_t n) { return n == 16 || n == 32 || n == 64 || n == 128; }

class SpargeAttn final : public Method {
 public:
  std::string mode = "mass";
  double mass = 0.998, keep = 0.5;
  double similarity = 0.4;
  std::int64_t block = 64, row_block = 64;
  std::int64_t sink = 1;
  bool smooth = true;
  double pv_skip = 50;
  double l1 = 0.07, pv_l1 = 0.08;
  std::string profile;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mode, "mode", "mass|keep", "trusted blocks by their mass, or a share of the key blocks");
    v(mass, "mass", 0.0, 1.0, "share of the trusted blocks' estimated attention not to be passed (mode = mass); 1 = everything");
    v(keep, "keep", 0.0, 1.0, "share of the key blocks (mode = keep); 1 = everything", true);
    v(similarity, "similarity", -1.0, 1.0, "self-similarity above which a block's mean is trusted; 1 = none");
    v(block, "block", 16, 128, "keys of a block: 16, 32, 64 or 128");
    v(row_block, "row_block", 16, 128, "rows of a block: 16, 32, 64 or 128");
    v(sink, "sink", 0, std::int64_t{1} << 20, "first keys, always kept, in whole blocks");
    v(smooth, "smooth", "take the keys' mean off before they are compared");
    v(pv_skip, "pv_skip", 0.0, kNoSkip, "log2 of how far below a row's largest weight a tile's values are left out; 1000 = nothing is");
    v(l1, "l1", 0.0, 1.0, "calibration: relative error of the output that leaving blocks out may make", true);
    v(pv_l1, "pv_l1", 0.0, 1.0, "calibration: the same with pv_skip, larger than l1", true);
    v(profile, "profile", "", "file of lacuna calibrate spargeattn: similarity, mass and pv_skip of each head");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = SpargeAttn();
    if (name == "paper") {
      mass = 0.98;
      similarity = 0.6;
      row_block = 128;
      sink = 0;
    }
    return Method::preset(name);
  }
  Status check() const override {
    for (const auto& [name, value] : {std::pair{"block", block}, {"row_block", row_block}})
      if (!is_block(value)) return bad_argument(fmt::format("spargeattn.{}: got {}, need 16, 32, 64 or 128", name, value));
    if (pv_l1 <= l1) return bad_argument(fmt::format("spargeattn.pv_l1: got {}, need more than l1 ({})", pv_l1, l1));
    return {};
  }
  std::unique_ptr<Calibrator> calibrator() const override {
    return std::make_unique<Tuner>(
        block::GuardSearch{.block_q = bq(), .block_k = bk(), .sinks = sinks(), .l1 = l1, .pv_l1 = pv_l1}, smooth);
  }
  Status use(const Profile& p) override {
    if (mode != "mass") return bad_argument(fmt::format("spargeattn.mode: got {}, need mass with a profile", mode));
    const auto integer = [&](const char* key, std::int64_t lo, std::int64_t hi) -> Result<std::int64_t> {
      auto at = member(p.data, "data", key);
      if (!at.ok()) return at.error();
      return as_int(*at.value(), fmt::format("data.{}", key), lo, hi);
    };
    auto layers = integer("layers", 1, 4096), heads = integer("heads", 1, 4096);
    for (const auto* size : {&layers, &heads})
      if (!size->ok()) return size->error();
    for (const auto& [key, size, model, need] : {std::tuple{"layers", layers.value(), "n_layers", p.model.n_layers},
                                                 {"heads", heads.value(), "hq", p.model.hq}})
      if (size != need) return bad_file(fmt::format("data.{}: got {}, need {} as model.{} has it", key, size, need, model));
    for (const auto& [key, mine] : {std::pair{"block", block}, {"row_block", row_block}, {"smooth", std::int64_t{smooth}}}) {
      auto made_with = integer(key, 0, 128);
      if (!made_with.ok()) return made_with.error();
      if (made_with.value() != mine)
        return bad_argument(fmt::format("spargeattn.{}: got {}, need {}: the profile was made with it", key, mine, made_with.value()));
    }
    const auto n = static_cast<std::size_t>(layers.value() * heads.value());
    std::vector<double> found[3];
    for (int i = 0; i < 3; ++i) {
      constexpr std::tuple<const char*, double, double> kLists[] = {{"similarity", -1, 1}, {"mass", 0, 1}, {"pv_skip", 0, kNoSkip}};
      const auto [key, lo, hi] = kLists[i];
      auto at = member(p.data, "data", key);
      if (!at.ok()) return at.error();
      auto list = as_numbers(*at.value(), fmt::format("data.{}", key), n, lo, hi);
      if (!list.ok()) return list.error();
      found[i] = std::move(list.value());
    }
    heads_ = static_cast<std::int32_t>(heads.value());
    tuned_.clear();
    for (std::size_t i = 0; i < n; ++i) tuned_.push_back({found[0][i], found[1][i], found[2][i]});
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("spargeattn: decode is dense");
    if (x.grid.n_keys < 2 * block)
      return dense_plan(fmt::format("spargeattn: {} keys, fewer than two blocks of {}", x.grid.n_keys, block));
    if (x.grid.n_rows < kLeastRows)
      return dense_plan(fmt::format("spargeattn: a chunk of {} rows, fewer than {}: the estimate would cost more than it saves",
                                    x.grid.n_rows, kLeastRows));
    const std::int32_t heads = x.grid.heads;
    std::vector<Bounds> bounds;
    for (std::int32_t h = 0; h < heads; ++h) bounds.push_back(bounds_of(x.layer, h));
    const bool skips = std::any_of(bounds.begin(), bounds.end(), [](const Bounds& b) { return b.pv_skip < kNoSkip; });
    const bool dense = std::all_of(bounds.begin(), bounds.end(), [&](const Bounds& b) { return keeps_all(b); });
    Plan plan = dense ? dense_plan("spargeattn: all blocks are kept") : plan_of(blocks(x, bounds, context));
    if (skips)
      for (const Bounds& b : bounds)
        plan.pv_skip.push_back(b.pv_skip < kNoSkip ? static_cast<float>(b.pv_skip) : std::numeric_limits<float>::infinity());
    if (!dense && std::any_of(bounds.begin(), bounds.end(), [&](const Bounds& b) { return keeps_all(b); }))
      for (const Bounds& b : bounds) plan.routes.push_back(keeps_all(b) ? kRouteFull : Route{0});
    return plan;
  }

 private:
  // What differs from head to head.
  struct Bounds {
    double similarity, mass, pv_skip;
  };
  std::int32_t bq() const { return static_cast<std::int32_t>(row_block); }
  std::int32_t bk() const { return static_cast<std::int32_t>(block); }
  std::int64_t sinks() const { return (sink + block - 1) / block; }
  Bounds bounds_of(int layer, std::int32_t head) const {
    const auto at = static_cast<std::size_t>(layer) * static_cast<std::size_t>(heads_) + static_cast<std::size_t>(head);
    return head < heads_ && at < tuned_.size() ? tuned_[at] : Bounds{similarity, mass, pv_skip};
  }
  bool keeps_all(const Bounds& b) const { return (mode == "mass" ? b.mass : keep) >= 1.0; }

  BlockMap blocks(const AttentionView& x, const std::vector<Bounds>& bounds, Context& context) const {
    block::SelfSimilarity alike;
    block::PooledScores scores;
    {
      const Timed timed(context, Verb::estimate);
      const block::BlockSums keys = block::key_sums(x, bk(), context);
      alike = block::self_similarity(x, bq(), keys, smooth, context);
      scores = block::pooled_scores(x, alike.row_sums, keys, context);
    }
    const Timed timed(context, Verb::budget);
    const std::int32_t lists = x.grid.heads * scores.row_blocks;
    auto* set = context.scratch_as<std::uint8_t>(block::kSetSlot, static_cast<std::size_t>(lists * scores.key_blocks));
    std::vector<block::GuardWork> work(static_cast<std::size_t>(context.threads().workers()));
    context.threads().each(lists, [&](int task, int worker) {
      const std::int32_t h = task / scores.row_blocks, u = task % scores.row_blocks;
      const Bounds& b = bounds[static_cast<std::size_t>(h)];
      const block::GuardRule rule{.by = mode == "mass" ? block::GuardRule::By::mass : block::GuardRule::By::keep,
                                  .similarity = b.similarity,
                                  .mass = b.mass,
                                  .keep = keep,
                                  .sinks = sinks()};
      block::keep_guarded(rule, block::guarded_row(x, scores, alike, bq(), bk(), h, u), work[static_cast<std::size_t>(worker)],
                          set + task * scores.key_blocks);
    });
    return block::to_block_map(x.grid, bq(), bk(), set);
  }

  std::int32_t heads_ = 0;
  std::vector<Bounds> tuned_;  // [layers][heads_]; empty: all heads alike
};

}  // namespace

LACUNA_METHOD(spargeattn, SpargeAttn)

}  // namespace lacuna::method
