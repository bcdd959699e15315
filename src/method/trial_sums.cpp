// SPDX-License-Identifier: Apache-2.0
#include "method/trial_sums.h"

#include <algorithm>

#include <fmt/format.h>

#include "method/profile.h"

namespace lacuna {
namespace {

constexpr std::size_t kMostBands = 64, kMostMethods = 256, kLongestSpec = 256;
constexpr int kMostLayers = 4096, kMostHeads = 4096;
constexpr std::int64_t kMostKeys = std::int64_t{1} << 30, kMostRows = std::int64_t{1} << 40;
constexpr double kMostPairs = 1e18;

Result<TrialSums::Cell> read_cell(const nlohmann::json& value, const std::string& where, std::size_t sizes) {
  TrialSums::Cell c;
  const auto rows = member(value, where, "rows"), pairs = member(value, where, "pairs"), kept = member(value, where, "kept"),
             lost = member(value, where, "lost");
  for (const auto* part : {&rows, &pairs, &kept, &lost})
    if (!part->ok()) return part->error();
  const auto n = as_int(*rows.value(), where + ".rows", 0, kMostRows);
  if (!n.ok()) return n.error();
  const auto seen = as_number(*pairs.value(), where + ".pairs", 0, kMostPairs);
  if (!seen.ok()) return seen.error();
  auto k = as_numbers(*kept.value(), where + ".kept", n.value() ? sizes : 0, 0, kMostPairs);
  if (!k.ok()) return k.error();
  auto l = as_numbers(*lost.value(), where + ".lost", n.value() ? sizes : 0, 0, static_cast<double>(kMostRows));
  if (!l.ok()) return l.error();
  c.rows = n.value();
  c.pairs = seen.value();
  c.kept = std::move(k.value());
  c.lost = std::move(l.value());
  return c;
}

}  // namespace

std::size_t band_of(const std::vector<std::int64_t>& bands, std::int64_t keys) {
  return static_cast<std::size_t>(std::lower_bound(bands.begin(), bands.end(), keys) - bands.begin());
}

void TrialSums::add(const Trial& t) {
  const std::size_t band = band_of(bands, t.keys);
  if (band == bands.size() || t.layer < 0 || t.layer >= kMostLayers) return;
  if (heads == 0) heads = static_cast<int>(t.kept.size());
  if (t.layer >= layers) {  // a layer more: cells lie by band, then layer
    std::vector<Cell> wider(bands.size() * static_cast<std::size_t>(t.layer + 1));
    for (std::size_t i = 0; i < cells.size(); ++i)
      wider[i / static_cast<std::size_t>(layers) * static_cast<std::size_t>(t.layer + 1) + i % static_cast<std::size_t>(layers)] = std::move(cells[i]);
    cells = std::move(wider);
    layers = t.layer + 1;
  }
  Cell& c = cells[band * static_cast<std::size_t>(layers) + static_cast<std::size_t>(t.layer)];
  c.kept.resize(methods.size() * static_cast<std::size_t>(heads));
  c.lost.resize(c.kept.size());
  if (t.method == 0) {  // every method is tried on the same rows
    c.rows += t.rows;
    c.pairs += t.pairs;
    longest = std::max(longest, t.keys);
  }
  for (int h = 0; h < heads; ++h) {
    c.kept[at(t.method, h)] += t.kept[static_cast<std::size_t>(h)];
    c.lost[at(t.method, h)] += t.lost[static_cast<std::size_t>(h)];
  }
}

nlohmann::json as_json(const TrialSums& s) {
  nlohmann::json cells = nlohmann::json::array();
  for (const auto& c : s.cells) cells.push_back({{"rows", c.rows}, {"pairs", c.pairs}, {"kept", c.kept}, {"lost", c.lost}});
  return {{"methods", s.methods}, {"bands", s.bands}, {"layers", s.layers}, {"heads", s.heads}, {"longest", s.longest}, {"cells", cells}};
}

Result<std::vector<std::int64_t>> read_bands(const nlohmann::json& value, std::string_view where) {
  if (!value.is_array() || value.empty() || value.size() > kMostBands)
    return bad_file(fmt::format("{}: need a list of 1..{} lengths", where, kMostBands));
  auto bands = as_ints(value, where, value.size(), 1, kMostKeys);
  if (bands.ok() && std::adjacent_find(bands.value().begin(), bands.value().end(), std::greater_equal<>()) != bands.value().end())
    return bad_file(fmt::format("{}: lengths must ascend", where));
  return bands;
}

Result<TrialSums> trial_sums(const nlohmann::json& value, std::string_view where) {
  const auto in = [&](const char* key) { return fmt::format("{}.{}", where, key); };
  const auto methods = member(value, where, "methods"), bands = member(value, where, "bands"), layers = member(value, where, "layers"),
             heads = member(value, where, "heads"), longest = member(value, where, "longest"), cells = member(value, where, "cells");
  for (const auto* part : {&methods, &bands, &layers, &heads, &longest, &cells})
    if (!part->ok()) return part->error();
  TrialSums s;
  const auto& list = *methods.value();
  if (!list.is_array() || list.empty() || list.size() > kMostMethods)
    return bad_file(fmt::format("{}: need a list of 1..{} specs", in("methods"), kMostMethods));
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto spec = as_text(list[i], fmt::format("{}[{}]", in("methods"), i), kLongestSpec);
    if (!spec.ok()) return spec.error();
    s.methods.push_back(std::move(spec.value()));
  }
  auto edges = read_bands(*bands.value(), in("bands"));
  if (!edges.ok()) return edges.error();
  s.bands = std::move(edges.value());
  const auto n = as_int(*layers.value(), in("layers"), 0, kMostLayers), h = as_int(*heads.value(), in("heads"), 0, kMostHeads),
             far = as_int(*longest.value(), in("longest"), 0, kMostKeys);
  for (const auto* part : {&n, &h, &far})
    if (!part->ok()) return part->error();
  s.layers = static_cast<int>(n.value());
  s.heads = static_cast<int>(h.value());
  s.longest = far.value();
  LACUNA_CHECK(check_list(*cells.value(), in("cells"), s.bands.size() * static_cast<std::size_t>(s.layers)));
  for (std::size_t i = 0; i < cells.value()->size(); ++i) {
    auto c = read_cell((*cells.value())[i], fmt::format("{}[{}]", in("cells"), i), s.methods.size() * static_cast<std::size_t>(s.heads));
    if (!c.ok()) return c.error();
    s.cells.push_back(std::move(c.value()));
  }
  return s;
}

}  // namespace lacuna
