// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/score_quantile.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "block/estimate/key_scores.h"

namespace lacuna::block {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

int band_of(std::int64_t n) { return static_cast<int>(4 * std::log2(static_cast<double>(n))); }

}  // namespace

double ScoreQuantile::Band::threshold(int head, double sigma) const {
  const auto h = static_cast<std::size_t>(head);
  const double mean = sum[h] / static_cast<double>(rows), variance = square[h] / static_cast<double>(rows) - mean * mean;
  return mean + sigma * std::sqrt(std::max(variance, 0.0));
}

Status ScoreQuantile::add(const AttentionView& x, std::int32_t rows, Context& context) {
  const Grid& g = x.grid;
  if (heads_ == 0) heads_ = g.heads;
  if (heads_ != g.heads) return bad_argument(fmt::format("layer {}: got {} query heads, need {} as in the layers before", x.layer, g.heads, heads_));
  if (x.layer >= layers()) layers_.resize(static_cast<std::size_t>(x.layer) + 1);
  const std::int32_t step = std::max(1, g.n_rows / std::max(rows, 1));
  const std::int32_t first = (g.n_rows - 1) % step;  // the last row is one of them
  const FewRows few{.q = x.q + first * x.q_row, .q_head = x.q_head, .q_row = step * x.q_row, .rows = g.n_rows > 0 ? (g.n_rows - 1) / step + 1 : 0};
  if (few.rows == 0) return {};
  const auto length = [&](std::int32_t i) { return g.first_key + first + std::int64_t{i} * step + 1; };
  std::vector<float> found(static_cast<std::size_t>(g.heads) * static_cast<std::size_t>(few.rows), kNone);
  for_key_scores(x, few, context, [&](int h, float* score, std::int64_t score_row) {
    for (std::int32_t i = 0; i < few.rows; ++i, score += score_row) {
      const std::int64_t n = length(i), count = count_(x.layer, n);
      if (count < 1 || count >= n || std::any_of(score, score + n, [](float s) { return std::isnan(s); })) continue;
      std::nth_element(score, score + count, score + n, std::greater<>());
      found[static_cast<std::size_t>(h * few.rows + i)] = score[count] * x.scale;
    }
  });
  for (std::int32_t i = 0; i < few.rows; ++i) {
    bool all = true;  // a row counts for all heads, or for none
    for (std::int32_t h = 0; h < g.heads; ++h) all = all && std::isfinite(found[static_cast<std::size_t>(h * few.rows + i)]);
    longest_ = std::max(longest_, length(i));
    if (!all) continue;
    Band& band = layers_[static_cast<std::size_t>(x.layer)][band_of(length(i))];
    band.sum.resize(static_cast<std::size_t>(g.heads));
    band.square.resize(static_cast<std::size_t>(g.heads));
    ++band.rows;
    band.length += static_cast<double>(length(i));
    for (std::int32_t h = 0; h < g.heads; ++h) {
      const double t = found[static_cast<std::size_t>(h * few.rows + i)];
      band.sum[static_cast<std::size_t>(h)] += t;
      band.square[static_cast<std::size_t>(h)] += t * t;
    }
  }
  return {};
}

nlohmann::json ScoreQuantile::save() const {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& bands : layers_) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [number, b] : bands)
      list.push_back({{"band", number}, {"rows", b.rows}, {"length", b.length}, {"sum", b.sum}, {"square", b.square}});
    layers.push_back(std::move(list));
  }
  return {{"heads", heads_}, {"longest", longest_}, {"layers", std::move(layers)}};
}

Status ScoreQuantile::load(const nlohmann::json& state) {
  const auto damaged = [](const char* what) { return bad_file(fmt::format("the saved sums are damaged ({}): begin anew", what)); };
  const auto whole = [](const nlohmann::json& in, const char* key, std::int64_t lo, std::int64_t hi) {
    const auto it = in.find(key);
    return it != in.end() && it->is_number_integer() && *it >= lo && *it <= hi;
  };
  if (!state.is_object() || !whole(state, "heads", 0, 4096) || !whole(state, "longest", 0, std::int64_t{1} << 40)) return damaged("sizes");
  const auto layers = state.find("layers");
  if (layers == state.end() || !layers->is_array() || layers->size() > 4096) return damaged("layers");
  ScoreQuantile loaded(count_);
  loaded.heads_ = state["heads"].get<int>();
  loaded.longest_ = state["longest"].get<std::int64_t>();
  for (const auto& list : *layers) {
    auto& bands = loaded.layers_.emplace_back();
    if (!list.is_array()) return damaged("a layer");
    for (const auto& b : list) {
      if (!b.is_object() || !whole(b, "band", 0, 200) || !whole(b, "rows", 1, std::int64_t{1} << 50) || !b.contains("length") ||
          !b["length"].is_number() || bands.count(b["band"].get<int>()) > 0)
        return damaged("a band");
      Band& to = bands[b["band"].get<int>()];
      to.rows = b["rows"].get<std::int64_t>();
      to.length = b["length"].get<double>();
      for (const auto& [key, into] : {std::pair{"sum", &to.sum}, {"square", &to.square}}) {
        if (!b.contains(key) || !b[key].is_array() || b[key].size() != static_cast<std::size_t>(loaded.heads_)) return damaged("a list");
        for (const auto& v : b[key]) {
          if (!v.is_number()) return damaged("a sum");
          into->push_back(v.get<double>());
        }
      }
    }
  }
  *this = std::move(loaded);
  return {};
}

}  // namespace lacuna::block
