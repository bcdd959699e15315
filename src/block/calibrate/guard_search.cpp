// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/guard_search.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "block/calibrate/attention_parts.h"

namespace lacuna::block {
namespace {

constexpr double kMostSkip = 50, kDenseBelow = 0.1, kNever = std::numeric_limits<double>::infinity();
constexpr int kGrid = 16, kMassSteps = 10, kSkipSteps = 8;

// Some row blocks of one head, with what is needed to try a rule on them.
struct Sample {
  GuardedRow row;
  AttentionParts parts;
  std::vector<std::uint8_t> set;
};

// The smallest x in (lo, hi] on 2^-steps of the range that `good` takes, if good(hi) and good is monotone.
template <class Good>
double smallest(double lo, double hi, int steps, const Good& good) {
  for (int i = 0; i < steps; ++i) {
    const double mid = 0.5 * (lo + hi);
    (good(mid) ? hi : lo) = mid;
  }
  return hi;
}

}  // namespace

GuardFound search_guard(const GuardSearch& how, const AttentionView& x, const PooledScores& scores,
                        const SelfSimilarity& alike, std::int32_t h) {
  std::vector<Sample> samples;
  for (std::int32_t i = 0; i < std::min(kSearchBlocks, scores.row_blocks); ++i) {
    const std::int32_t u = scores.row_blocks - 1 - i * scores.row_blocks / kSearchBlocks, first = u * how.block_q;
    const std::int32_t n = std::min(how.block_q, x.grid.n_rows - first);
    const GuardedRow row = guarded_row(x, scores, alike, how.block_q, how.block_k, h, u);
    samples.push_back({row, AttentionParts(x, h, first, n, std::max(1, n / kSearchRows), std::min(how.block_k, 32)),
                       std::vector<std::uint8_t>(static_cast<std::size_t>(row.blocks))});
  }
  GuardWork work;
  const auto error = [&](const GuardRule& rule, double pv_skip) {
    OutputError e;
    for (Sample& s : samples) {
      keep_guarded(rule, s.row, work, s.set.data());
      s.parts.add_error(s.set.data(), how.block_k, pv_skip, e);
    }
    return e.relative();
  };
  // After error() with the same rule.
  const auto sparsity = [&] {
    double kept = 0, all = 0;
    for (const Sample& s : samples) {
      kept += static_cast<double>(std::count(s.set.begin(), s.set.end(), 1));
      all += static_cast<double>(s.set.size());
    }
    return 1 - kept / all;
  };

  GuardFound best;
  std::int64_t before = -1;
  for (int step = -kGrid; step <= kGrid; ++step) {
    GuardRule rule{.similarity = static_cast<double>(step) / kGrid, .sinks = how.sinks};
    std::int64_t trusted = 0;  // falls as the similarity rises: the same number are the same blocks
    for (const Sample& s : samples) {
      trusted += s.row.rows_alike > rule.similarity;
      for (std::int32_t b = 0; b < s.row.blocks; ++b) trusted += s.row.keys_alike[b] > rule.similarity;
    }
    if (trusted == before) {
      if (best.similarity == static_cast<double>(step - 1) / kGrid) best.similarity = rule.similarity;
      continue;
    }
    before = trusted;
    rule.mass = 1;
    rule.mass = smallest(0, 1, kMassSteps, [&](double mass) {
      GuardRule tried = rule;
      tried.mass = mass;
      return error(tried, kNever) < how.l1;
    });
    (void)error(rule, kNever);
    if (const double s = sparsity(); s > best.sparsity)
      best = {.similarity = rule.similarity, .mass = rule.mass, .pv_skip = kMostSkip, .sparsity = s};
  }
  const GuardRule rule{.similarity = best.similarity, .mass = best.mass, .sinks = how.sinks};
  best.pv_skip = smallest(0, kMostSkip, kSkipSteps, [&](double pv_skip) { return error(rule, pv_skip) < how.pv_l1; });
  return best;
}

Status GuardRecords::add(int layer, std::span<const GuardFound> heads) {
  if (layers_.empty()) heads_ = static_cast<int>(heads.size());
  if (static_cast<int>(heads.size()) != heads_)
    return unsupported(fmt::format("layer {} has {} heads, others {}: need a model whose layers agree", layer, heads.size(), heads_));
  if (layer >= layers()) layers_.resize(static_cast<std::size_t>(layer) + 1);
  auto& list = layers_[static_cast<std::size_t>(layer)];
  list.insert(list.end(), heads.begin(), heads.end());
  return {};
}

std::size_t GuardRecords::inputs(int layer) const {
  return layer < layers() && heads_ > 0 ? layers_[static_cast<std::size_t>(layer)].size() / static_cast<std::size_t>(heads_) : 0;
}

GuardFound GuardRecords::choose(int layer, int head) const {
  struct Bin {
    double sparsity = 0;
    GuardFound largest{.similarity = -1, .mass = 0, .pv_skip = 0};
  };
  std::map<int, Bin> bins;
  double all = 0;
  const std::size_t n = inputs(layer);
  if (n == 0) return {};
  const auto& list = layers_[static_cast<std::size_t>(layer)];
  for (std::size_t i = 0; i < n; ++i) {
    const GuardFound& f = list[i * static_cast<std::size_t>(heads_) + static_cast<std::size_t>(head)];
    Bin& bin = bins[static_cast<int>(std::floor(f.similarity * 8))];
    bin.sparsity += f.sparsity;
    bin.largest.similarity = std::max(bin.largest.similarity, f.similarity);
    bin.largest.mass = std::max(bin.largest.mass, f.mass);
    bin.largest.pv_skip = std::max(bin.largest.pv_skip, f.pv_skip);
    all += f.sparsity;
  }
  if (all / static_cast<double>(n) <= kDenseBelow) return {};
  const Bin* best = nullptr;
  for (const auto& [at, bin] : bins)
    if (!best || bin.sparsity > best->sparsity) best = &bin;
  GuardFound out = best->largest;
  out.sparsity = all / static_cast<double>(n);
  return out;
}

nlohmann::json GuardRecords::save() const {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& list : layers_) {
    nlohmann::json one = nlohmann::json::array();
    for (const GuardFound& f : list) one.push_back({f.similarity, f.mass, f.pv_skip, f.sparsity});
    layers.push_back(std::move(one));
  }
  return {{"heads", heads_}, {"layers", layers}};
}

Status GuardRecords::load(const nlohmann::json& state) {
  const auto damaged = [](const char* what) { return bad_file(fmt::format("the saved search is damaged ({}): begin anew", what)); };
  if (!state.is_object() || !state.contains("heads") || !state.contains("layers")) return damaged("no object");
  const auto &heads = state["heads"], &layers = state["layers"];
  if (!heads.is_number_integer() || heads < 0 || heads > 4096 || !layers.is_array() || layers.size() > 4096) return damaged("sizes");
  GuardRecords loaded;
  loaded.heads_ = heads.get<int>();
  for (const auto& saved : layers) {
    const auto per = static_cast<std::size_t>(loaded.heads_);
    if (!saved.is_array() || saved.size() > kMostInputs * per || (per > 0 && saved.size() % per)) return damaged("a layer");
    std::vector<GuardFound> list;
    for (const auto& x : saved) {
      if (!x.is_array() || x.size() != 4) return damaged("an entry");
      for (const auto& value : x)
        if (!value.is_number() || !(value.get<double>() >= -1 && value.get<double>() <= kMostSkip)) return damaged("a figure");
      list.push_back({x[0].get<double>(), x[1].get<double>(), x[2].get<double>(), x[3].get<double>()});
    }
    loaded.layers_.push_back(std::move(list));
  }
  *this = std::move(loaded);
  return {};
}

}  // namespace lacuna::block
