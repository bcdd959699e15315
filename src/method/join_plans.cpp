// SPDX-License-Identifier: Apache-2.0
#include "method/join_plans.h"

#include <algorithm>
#include <optional>

namespace lacuna {
namespace {

constexpr std::size_t kMostPatterns = 64;  // of a plan

// Rows per block of a plan's lists; 0: it has none.
std::int32_t block_of(const Plan& p) {
  for (const Pattern& pattern : p.patterns) {
    if (const auto* blocks = std::get_if<BlockMap>(&pattern)) return blocks->block_q;
    if (const auto* ranges = std::get_if<Ranges>(&pattern)) return ranges->block_q;
  }
  return 0;
}

}  // namespace

Plan join_plans(std::span<const Plan> plans, std::span<const int> of) {
  Plan out;
  out.patterns.clear();
  out.routes.assign(of.size(), kRouteFull);
  std::int32_t block = 0;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const Plan& p = plans[i];
    const bool taken = std::find(of.begin(), of.end(), static_cast<int>(i)) != of.end();
    const std::int32_t own = block_of(p);
    if (!taken || is_dense(p) || (own && block && own != block) || out.patterns.size() + p.patterns.size() > kMostPatterns) continue;
    if (own) block = own;
    const auto first = static_cast<Route>(out.patterns.size());
    out.patterns.insert(out.patterns.end(), p.patterns.begin(), p.patterns.end());
    for (std::size_t h = 0; h < of.size(); ++h) {
      if (of[h] != static_cast<int>(i)) continue;
      const Route r = p.route(static_cast<std::int32_t>(h));
      out.routes[h] = r < 0 ? r : static_cast<Route>(first + r);
      if (p.pv_skip.empty()) continue;
      if (out.pv_skip.empty()) out.pv_skip.assign(of.size(), std::numeric_limits<float>::infinity());
      out.pv_skip[h] = p.pv_skip[h];
    }
  }
  if (out.patterns.empty()) out = plan_of(Dense{});
  return out;
}

void share_windows(Plan& plan, std::int32_t q_heads, std::int32_t kv_heads) {
  if (plan.routes.empty()) return;
  const std::int32_t group = q_heads / kv_heads;
  for (std::int32_t first = 0; first < q_heads; first += group) {
    const auto begin = plan.routes.begin() + first, end = begin + group;
    if (std::all_of(begin, end, [&](Route r) { return r == *begin; })) continue;
    std::optional<Window> widest = Window{};
    for (auto r = begin; r != end && widest; ++r) {
      const Window* w = *r < 0 ? nullptr : std::get_if<Window>(&plan.patterns[static_cast<std::size_t>(*r)]);
      if (w && w->dense_from < 0) widest = Window{.sink = std::max(widest->sink, w->sink), .window = std::max(widest->window, w->window)};
      else widest.reset();
    }
    Route shared = kRouteFull;
    if (widest && plan.patterns.size() < kMostPatterns) {
      shared = static_cast<Route>(plan.patterns.size());
      plan.patterns.emplace_back(*widest);
    }
    std::fill(begin, end, shared);
  }
}

}  // namespace lacuna
