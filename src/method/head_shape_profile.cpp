// SPDX-License-Identifier: Apache-2.0
#include "method/head_shape_profile.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr std::pair<block::HeadKind, const char*> kHeadKinds[] = {{block::HeadKind::full, "full"},
                                                                  {block::HeadKind::a_shape, "a-shape"},
                                                                  {block::HeadKind::block_sparse, "block-sparse"},
                                                                  {block::HeadKind::vertical_slash, "vertical-slash"}};

}  // namespace

nlohmann::json head_shape_entry(const block::ShapeSearch::Found& f) {
  using enum block::HeadKind;
  const auto rounded = [](double x) { return std::round(x * 1e5) / 1e5; };
  nlohmann::json j{{"lost", rounded(f.lost)}};
  for (const auto& [kind, name] : kHeadKinds)
    if (kind == f.kind) j["kind"] = name;
  if (f.kind == a_shape) j["sink"] = static_cast<std::int64_t>(f.columns), j["window"] = rounded(f.reach);
  if (f.kind == block_sparse) j["blocks"] = rounded(f.reach);
  if (f.kind == vertical_slash) j["vertical"] = rounded(f.columns), j["slash"] = rounded(f.reach);
  return j;
}

namespace {

Result<block::ShapeSearch::Found> head_shape(const nlohmann::json& entry, const std::string& where, bool counts) {
  using enum block::HeadKind;
  constexpr double kMostCount = 1 << 30;
  block::ShapeSearch::Found f;
  auto named = member(entry, where, "kind");
  if (!named.ok()) return named.error();
  auto name = as_text(*named.value(), where + ".kind", 32);
  if (!name.ok()) return name.error();
  const auto* known = std::find_if(std::begin(kHeadKinds), std::end(kHeadKinds),
                                   [&](const auto& k) { return name.value() == k.second; });
  if (known == std::end(kHeadKinds))
    return bad_file(
        fmt::format("{}.kind: got '{}', need full, a-shape, block-sparse or vertical-slash", where, name.value()));
  f.kind = known->first;
  const auto size = [&](const char* key, double& to, bool count) -> Status {
    auto at = member(entry, where, key);
    if (!at.ok()) return at.error();
    auto x = as_number(*at.value(), fmt::format("{}.{}", where, key), 0, count ? kMostCount : 1.0);
    if (!x.ok()) return x.error();
    to = x.value();
    return {};
  };
  if (f.kind == a_shape) {
    LACUNA_CHECK(size("sink", f.columns, true));
    LACUNA_CHECK(size("window", f.reach, counts));
  }
  if (f.kind == block_sparse) LACUNA_CHECK(size("blocks", f.reach, counts));
  if (f.kind == vertical_slash) {
    LACUNA_CHECK(size("vertical", f.columns, counts));
    LACUNA_CHECK(size("slash", f.reach, counts));
  }
  return f;
}

}  // namespace

Result<HeadShapeList> head_shapes(const Profile& p) {
  constexpr std::size_t kMostWindows = 60;  // of one layer: each is a pattern of its own
  auto n_layers = member(p.data, "data", "layers"), n_heads = member(p.data, "data", "heads"),
       unit = member(p.data, "data", "unit"), list = member(p.data, "data", "shapes");
  for (const auto* part : {&n_layers, &n_heads, &unit, &list})
    if (!part->ok()) return part->error();
  auto layers = as_int(*n_layers.value(), "data.layers", 1, p.model.n_layers);
  if (!layers.ok()) return layers.error();
  auto heads = as_int(*n_heads.value(), "data.heads", p.model.hq, p.model.hq);
  if (!heads.ok()) return heads.error();
  auto text = as_text(*unit.value(), "data.unit", 16);
  if (!text.ok()) return text.error();
  if (text.value() != "share" && text.value() != "count")
    return bad_file(fmt::format("data.unit: got '{}', need share or count", text.value()));
  LACUNA_CHECK(check_list(*list.value(), "data.shapes", static_cast<std::size_t>(layers.value())));
  HeadShapeList out{.heads = static_cast<std::int32_t>(heads.value()), .counts = text.value() == "count", .shapes = {}};
  for (std::size_t l = 0; l < list.value()->size(); ++l) {
    const nlohmann::json& layer = (*list.value())[l];
    const std::string where = fmt::format("data.shapes[{}]", l);
    if (layer.is_null()) {
      out.shapes.resize(out.shapes.size() + static_cast<std::size_t>(out.heads));
      continue;
    }
    LACUNA_CHECK(check_list(layer, where, static_cast<std::size_t>(out.heads)));
    std::vector<std::pair<double, double>> windows;
    for (std::size_t h = 0; h < layer.size(); ++h) {
      auto f = head_shape(layer[h], fmt::format("{}[{}]", where, h), out.counts);
      if (!f.ok()) return f.error();
      out.shapes.push_back(f.value());
      if (f.value().kind == block::HeadKind::a_shape) windows.emplace_back(f.value().columns, f.value().reach);
    }
    std::sort(windows.begin(), windows.end());
    windows.erase(std::unique(windows.begin(), windows.end()), windows.end());
    if (windows.size() > kMostWindows)
      return bad_file(
          fmt::format("{}: got {} different sinks and windows of a-shape heads, need at most {}: calibrate again",
                      where, windows.size(), kMostWindows));
  }
  return out;
}

}  // namespace lacuna
