// SPDX-License-Identifier: Apache-2.0
#include "engine/patterns.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

#include "op/attend_ref.h"

namespace lacuna {

namespace {

// Which cells a row attends, as runs say: a byte per cell of the cache.
std::vector<std::uint8_t> attended_cells(const TileRuns& runs, int head, std::int32_t row) {
  std::vector<std::uint8_t> cells(static_cast<std::size_t>(runs.n_cells), 0);
  const std::int32_t in_block = row % runs.block_q;
  const std::int32_t* list = runs.list(head, row / runs.block_q);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = runs.runs[r];
    const std::uint32_t word = run.bits < 0 ? ~0u : runs.words[std::int64_t{run.bits} * runs.block_q + in_block];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile)
      for (int b = 0; b < kTileKeys; ++b)
        if (word >> b & 1u) cells[static_cast<std::size_t>(runs.cell(tile, b))] = 1;
  }
  return cells;
}

// 0 none, 9 all, 1..8 in between: a digit never says "all" of what is not.
char share_digit(double share) {
  if (share <= 0) return '0';
  return share >= 1 ? '9' : static_cast<char>('1' + std::min(7, static_cast<int>(share * 8)));
}

// Half powers of ten: 0 below 1e-4, 1 from 1e-4, 3 from 1e-3, 5 from 1 %, 7 from 10 %, 9 all.
char mass_digit(double mass) {
  constexpr double kLeast = 1e-4, kRounding = 1e-9;
  if (mass < kLeast) return '0';
  return static_cast<char>('1' + std::clamp(static_cast<int>(2 * std::log10(mass / kLeast) + kRounding), 0, 8));
}

nlohmann::json as_digits(const std::vector<std::vector<double>>& rows, char (*digit)(double)) {
  nlohmann::json out = nlohmann::json::array();
  for (const auto& row : rows) {
    std::string text;
    for (const double x : row) text += x < 0 ? ' ' : digit(x);
    out.push_back(text);
  }
  return out;
}

}  // namespace

void Patterns::announce(std::int64_t prompt_tokens) {
  if (tokens_ > 0 || prompt_tokens <= 0) return;
  constexpr std::int64_t kRowsOfPart = 128;  // the audit draws one row of 64: each part has one
  tokens_ = prompt_tokens;
  parts_ = static_cast<std::size_t>(std::clamp<std::int64_t>(prompt_tokens / kRowsOfPart, kLeastParts, kMostParts));
}

void Patterns::choose_layers(int n_layers, const std::vector<bool>& windowed) {
  std::vector<int> whole;
  for (int l = 0; l < n_layers; ++l)
    if (static_cast<std::size_t>(l) >= windowed.size() || !windowed[static_cast<std::size_t>(l)]) whole.push_back(l);
  layers_.clear();
  for (std::size_t i = 1; i <= kMostLayers && !whole.empty(); ++i)
    if (const int l = whole[whole.size() * i / (kMostLayers + 1)]; layers_.empty() || layers_.back() != l) layers_.push_back(l);
}

void Patterns::count_heads(int layer, std::int32_t hq, double visible_pairs, const LoweredRuns* runs) {
  const auto at = static_cast<std::size_t>(std::max(layer, 0));
  if (at >= density_.size()) density_.resize(at + 1);
  Heads& heads = density_[at];
  heads.attended.resize(static_cast<std::size_t>(hq), 0.0);
  heads.visible += visible_pairs;
  for (std::int32_t h = 0; h < hq; ++h)
    heads.attended[static_cast<std::size_t>(h)] +=
        runs ? runs->list_pairs[static_cast<std::size_t>(runs->heads == 1 ? 0 : h / runs->heads_per_list)] : visible_pairs;
}

void Patterns::add_row(int layer, const Visibility& visible, const Segment& s, std::int32_t row, const op::Attend::Args& args,
                       std::int32_t args_row, ParallelFor& parallel) {
  if (parts_ == 0 || std::find(layers_.begin(), layers_.end(), layer) == layers_.end()) return;
  const std::int64_t key = s.key_of_row[static_cast<std::size_t>(row)];
  if (key < 0 || key >= tokens_) return;
  const std::size_t part = static_cast<std::size_t>(key) * parts_ / static_cast<std::size_t>(tokens_);
  std::vector<int> heads;
  for (int i = 0; i < kHeads; ++i)
    if (const int h = args.hq * (2 * i + 1) / (2 * kHeads); heads.empty() || heads.back() != h) heads.push_back(h);
  std::array<Map*, kHeads> maps{};
  for (std::size_t i = 0; i < heads.size(); ++i) {
    maps[i] = &maps_[{layer, heads[i]}];
    for (auto* rows : {&maps[i]->kept, &maps[i]->mass, &maps[i]->lost}) rows->resize(parts_);
    if (!maps[i]->kept[part].empty()) return;
  }
  parallel.each(static_cast<int>(heads.size()), [&](int i, int) {
    const auto at = static_cast<std::size_t>(i);
    draw(*maps[at], part, visible, s, row, args, args_row, heads[at]);
  });
}

void Patterns::draw(Map& map, std::size_t part, const Visibility& visible, const Segment& s, std::int32_t row, const op::Attend::Args& args,
                    std::int32_t args_row, int head) const {
  const std::vector<std::uint8_t> attended = attended_cells(args.runs, head, args_row);
  const std::int32_t call_row = s.row_begin + row;
  struct Seen {
    std::size_t part;
    bool kept;
    double score;
  };
  std::vector<Seen> seen;
  double most = args.sinks ? args.sinks[head] : -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < std::min(s.n_keys, tokens_); ++j) {
    const std::int64_t cell = s.cell(j);
    if (!visible.sees(call_row, cell)) continue;
    const double score = op::score_ref(args, head, args_row, cell);
    seen.push_back({static_cast<std::size_t>(j) * parts_ / static_cast<std::size_t>(tokens_), attended[static_cast<std::size_t>(cell)] != 0, score});
    most = std::max(most, score);
  }
  double sum = args.sinks ? std::exp(args.sinks[head] - most) : 0;
  for (const Seen& x : seen) sum += std::exp(x.score - most);
  std::vector<double> pairs(parts_, 0.0), kept(parts_, 0.0), mass(parts_, 0.0), lost(parts_, 0.0);
  for (const Seen& x : seen) {
    const double p = std::exp(x.score - most) / sum;
    pairs[x.part] += 1;
    kept[x.part] += x.kept;
    mass[x.part] += p;
    if (!x.kept) lost[x.part] += p;
  }
  for (std::size_t i = 0; i < parts_; ++i) {
    constexpr double kNothingVisible = -1;
    kept[i] = pairs[i] > 0 ? kept[i] / pairs[i] : kNothingVisible;
    if (pairs[i] == 0) mass[i] = lost[i] = kNothingVisible;
  }
  map.kept[part] = std::move(kept);
  map.mass[part] = std::move(mass);
  map.lost[part] = std::move(lost);
}

nlohmann::json Patterns::as_json() const {
  nlohmann::json density = nlohmann::json::array(), maps = nlohmann::json::array();
  for (const Heads& h : density_) {
    nlohmann::json of_layer = nlohmann::json::array();
    for (const double attended : h.attended) of_layer.push_back(std::round(1000 * attended / std::max(h.visible, 1.0)) / 1000);
    density.push_back(h.visible > 0 ? of_layer : nlohmann::json());
  }
  for (const auto& [at, map] : maps_)
    if (std::find(layers_.begin(), layers_.end(), at.first) != layers_.end())
      maps.push_back({{"layer", at.first}, {"head", at.second}, {"kept", as_digits(map.kept, share_digit)},
                      {"mass", as_digits(map.mass, mass_digit)}, {"lost", as_digits(map.lost, mass_digit)}});
  return {{"parts", parts_}, {"density", density}, {"maps", maps}};
}

}  // namespace lacuna
