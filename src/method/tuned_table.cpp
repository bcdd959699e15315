// SPDX-License-Identifier: Apache-2.0
#include "method/tuned_table.h"

#include <algorithm>

#include <fmt/format.h>

#include "method/trial_sums.h"

namespace lacuna {
namespace {

constexpr std::size_t kMostMethods = 255, kLongestSpec = 256;  // numbers are bytes

}  // namespace

nlohmann::json as_json(const TunedTable& t) {
  nlohmann::json choice = nlohmann::json::array();
  for (std::size_t b = 0; b < t.bands.size(); ++b) {
    nlohmann::json layers = nlohmann::json::array();
    for (int l = 0; l < t.layers; ++l) {
      const auto heads = t.at(b, l);
      const bool dense = std::all_of(heads.begin(), heads.end(), [](std::uint8_t m) { return m == 0; });
      layers.push_back(dense ? nlohmann::json() : nlohmann::json(std::vector<int>(heads.begin(), heads.end())));
    }
    choice.push_back(std::move(layers));
  }
  return {{"methods", t.methods}, {"bands", t.bands}, {"choice", choice}};
}

Result<TunedTable> tuned_table(const Profile& p) {
  TunedTable t;
  t.layers = p.model.n_layers;
  t.heads = p.model.hq;
  const auto methods = member(p.data, "data", "methods"), bands = member(p.data, "data", "bands"), choice = member(p.data, "data", "choice");
  for (const auto* part : {&methods, &bands, &choice})
    if (!part->ok()) return part->error();
  const auto& list = *methods.value();
  if (!list.is_array() || list.empty() || list.size() > kMostMethods || list[0] != "dense")
    return bad_file(fmt::format("data.methods: need a list of 1..{} specs, the first of them dense", kMostMethods));
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto spec = as_text(list[i], fmt::format("data.methods[{}]", i), kLongestSpec);
    if (!spec.ok()) return spec.error();
    t.methods.push_back(std::move(spec.value()));
  }
  auto edges = read_bands(*bands.value(), "data.bands");
  if (!edges.ok()) return edges.error();
  t.bands = std::move(edges.value());
  LACUNA_CHECK(check_list(*choice.value(), "data.choice", t.bands.size()));
  const auto most = static_cast<std::int64_t>(t.methods.size()) - 1;
  for (std::size_t b = 0; b < t.bands.size(); ++b) {
    const nlohmann::json& layers = (*choice.value())[b];
    const std::string where = fmt::format("data.choice[{}]", b);
    LACUNA_CHECK(check_list(layers, where, static_cast<std::size_t>(t.layers)));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      auto& choice_of_layer = t.choice.emplace_back();
      if (layers[l].is_null()) continue;
      const auto heads = as_ints(layers[l], fmt::format("{}[{}]", where, l), static_cast<std::size_t>(t.heads), 0, most);
      if (!heads.ok()) return heads.error();
      for (const std::int64_t m : heads.value()) choice_of_layer.push_back(static_cast<std::uint8_t>(m));
    }
  }
  return t;
}

}  // namespace lacuna
