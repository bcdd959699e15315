// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/channel_mean.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>

namespace lacuna::block {

Status ChannelMean::add(int layer, const Rows& r) {
  const int group = r.grid.heads / r.hkv, heads = per_ == Per::kv_head ? r.hkv : r.grid.heads;
  if (layers_.empty()) {
    heads_ = heads;
    channels_ = r.dk;
  }
  if (heads != heads_ || r.dk != channels_)
    return unsupported(fmt::format("layer {} has {} heads of {} channels, others {} of {}: a model whose layers differ has "
                                   "no one list", layer, heads, r.dk, heads_, channels_));
  if (layer >= layers()) layers_.resize(static_cast<std::size_t>(layer) + 1);
  Layer& l = layers_[static_cast<std::size_t>(layer)];
  l.sum.resize(static_cast<std::size_t>(heads_ * channels_));
  std::vector<float> key(static_cast<std::size_t>(r.dk));
  for (std::int32_t i = 0; i < r.grid.n_rows; ++i)
    for (int g = 0; g < r.hkv; ++g) {
      if (of_ != Of::query) r.k.read(g, r.grid.first_key + i, key.data());
      for (int h = g * group; h < (g + 1) * group; ++h) {
        const float* q = r.q + h * r.q_head + i * r.q_row;
        double* sum = &l.sum[static_cast<std::size_t>((per_ == Per::kv_head ? g : h) * channels_)];
        const double share = per_ == Per::kv_head ? 1.0 / group : 1.0;
        for (int d = 0; d < r.dk; ++d) {
          const double x = of_ == Of::query ? q[d] : of_ == Of::key ? key[static_cast<std::size_t>(d)]
                                                                    : static_cast<double>(q[d]) * key[static_cast<std::size_t>(d)];
          sum[d] += share * std::abs(x);
        }
      }
    }
  l.tokens += r.grid.n_rows;
  return {};
}

std::int64_t ChannelMean::tokens() const {
  std::int64_t least = layers_.empty() ? 0 : std::numeric_limits<std::int64_t>::max();
  for (const Layer& l : layers_) least = std::min(least, l.tokens);
  return least;
}

double ChannelMean::mean(int layer, int head, int channel) const {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  return l.tokens > 0 ? l.sum[static_cast<std::size_t>(head * channels_ + channel)] / static_cast<double>(l.tokens) : 0.0;
}

std::vector<std::int32_t> ChannelMean::order(int layer, int head) const {
  std::vector<std::int32_t> out(static_cast<std::size_t>(channels_));
  std::iota(out.begin(), out.end(), 0);
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  if (l.tokens == 0) return out;
  const double* sum = &l.sum[static_cast<std::size_t>(head * channels_)];
  std::stable_sort(out.begin(), out.end(), [sum](std::int32_t a, std::int32_t b) { return sum[a] > sum[b]; });
  return out;
}

nlohmann::json ChannelMean::save() const {
  nlohmann::json layers = nlohmann::json::array();
  for (const Layer& l : layers_) layers.push_back({{"tokens", l.tokens}, {"sum", l.sum}});
  return {{"of", static_cast<int>(of_)}, {"per", static_cast<int>(per_)}, {"heads", heads_}, {"channels", channels_}, {"layers", layers}};
}

Status ChannelMean::load(const nlohmann::json& state) {
  const auto damaged = [](const char* what) { return bad_file(fmt::format("the saved sums are damaged ({}): begin anew", what)); };
  const auto figure = [&](const char* key, int hi) {
    const auto it = state.find(key);
    return it != state.end() && it->is_number_integer() && *it >= 0 && *it <= hi ? it->get<int>() : -1;
  };
  if (!state.is_object()) return damaged("no object");
  if (figure("of", 2) != static_cast<int>(of_) || figure("per", 1) != static_cast<int>(per_))
    return bad_file("the saved sums are of other channels or heads than asked for: begin anew");
  ChannelMean loaded(of_, per_);
  loaded.heads_ = figure("heads", 4096);
  loaded.channels_ = figure("channels", 1024);
  const auto layers = state.find("layers");
  if (loaded.heads_ < 0 || loaded.channels_ < 0 || layers == state.end() || !layers->is_array() || layers->size() > 4096)
    return damaged("sizes");
  const auto entries = static_cast<std::size_t>(loaded.heads_ * loaded.channels_);
  for (const auto& saved : *layers) {
    const bool whole = saved.is_object() && saved.contains("tokens") && saved["tokens"].is_number_integer() &&
                       saved.contains("sum") && saved["sum"].is_array();
    if (!whole) return damaged("a layer");
    Layer l;
    l.tokens = saved["tokens"].get<std::int64_t>();
    if (l.tokens < 0 || saved["sum"].size() != (l.tokens > 0 ? entries : saved["sum"].empty() ? 0 : entries)) return damaged("a list");
    for (const auto& x : saved["sum"]) {
      if (!x.is_number() || !(x.get<double>() >= 0)) return damaged("a sum");
      l.sum.push_back(x.get<double>());
    }
    loaded.layers_.push_back(std::move(l));
  }
  *this = std::move(loaded);
  return {};
}

}  // namespace lacuna::block
