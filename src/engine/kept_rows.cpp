// SPDX-License-Identifier: Apache-2.0
#include "engine/kept_rows.h"

#include <algorithm>

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr Pattern kEverything = Dense{};

// Appends a range behind the others; what touches the last one joins it.
void put(std::int64_t begin, std::int64_t end, std::int64_t keys, std::vector<Range>& to) {
  begin = std::max<std::int64_t>(begin, 0), end = std::min(end, keys);
  if (begin >= end) return;
  if (!to.empty() && begin <= to.back().end)
    to.back().end = std::max(to.back().end, static_cast<std::int32_t>(end));
  else
    to.push_back({static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)});
}

std::int32_t lists_of(const Pattern& p) {
  if (const auto* b = std::get_if<BlockMap>(&p)) return b->heads;
  if (const auto* r = std::get_if<Ranges>(&p)) return r->heads;
  return 1;
}

}  // namespace

KeptRows::KeptRows(const Plan& plan, const Allowed& allowed, std::int32_t sequence)
    : plan_(plan), allowed_(allowed), mask_(allowed.mask) {
  if (mask_ && allowed.masks > 1) mask_ += std::int64_t{sequence} * allowed.rows * allowed.keys;
  lists_ = plan.routes.empty() ? lists_of(plan.pattern()) : static_cast<std::int32_t>(plan.routes.size());
  Plan kept = plan;  // weights that are too small to matter are left in: pv_skip only allows to leave them out
  kept.pv_skip.clear();
  is_dense_ = is_dense(kept);
}

const Pattern* KeptRows::pattern(std::int32_t list) const {
  const Route r = plan_.route(list);
  if (r == kRouteOff) return nullptr;
  return r == kRouteFull ? &kEverything : &plan_.patterns[static_cast<std::size_t>(r)];
}

// Beside a mask the last key that it allows, as a segment of the whole call has it.
std::int64_t KeptRows::own(std::int32_t row) const {
  if (!mask_) return allowed_.causal ? row + allowed_.keys - allowed_.rows : allowed_.keys - 1;
  const std::uint8_t* seen = mask_ + std::int64_t{row} * allowed_.keys;
  std::int64_t last = allowed_.keys - 1;
  while (last >= 0 && !seen[last]) --last;
  return last;
}

std::int64_t KeptRows::seen(std::int32_t row) const {
  if (mask_ || !allowed_.causal) return allowed_.keys;
  return std::clamp<std::int64_t>(row + 1 + allowed_.keys - allowed_.rows, 0, allowed_.keys);
}

std::int32_t KeptRows::next(std::int32_t list, std::int32_t row, std::int32_t end) const {
  if (mask_) return row + 1;
  const Pattern* p = pattern(list);
  std::int32_t block = 0;
  if (p && std::holds_alternative<Window>(*p)) {
    if (allowed_.causal) return row + 1;
  } else if (p) {
    if (const auto* b = std::get_if<BlockMap>(p)) block = b->block_q;
    if (const auto* r = std::get_if<Ranges>(p)) block = r->block_q;
  }
  return block ? std::min(end, (row / block + 1) * block) : end;
}

void KeptRows::ranges(std::int32_t list, std::int32_t row, std::vector<Range>& to) const {
  to.clear();
  const Pattern* p = pattern(list);
  if (!p) return;
  const std::int64_t keys = allowed_.keys;
  if (std::holds_alternative<Dense>(*p)) {
    put(0, keys, keys, to);
  } else if (const auto* w = std::get_if<Window>(p)) {
    const std::int64_t at = own(row);
    put(0, w->dense_row(at) ? keys : w->sink, keys, to);
    put(at - w->window + 1, keys, keys, to);
  } else if (const auto* b = std::get_if<BlockMap>(p)) {
    for (const std::int64_t c : b->row(list_of_head(b->heads, lists_, list), row / b->block_q))
      put(c * b->block_k, (c + 1) * b->block_k, keys, to);
  } else {
    const auto& r = std::get<Ranges>(*p);
    for (const Range& x : r.row(list_of_head(r.heads, lists_, list), row / r.block_q)) put(x.begin, x.end, keys, to);
  }
  if (!mask_) return;
  const std::uint8_t* seen = mask_ + std::int64_t{row} * keys;
  std::vector<Range> both;
  for (const Range& x : to)
    for (std::int32_t j = x.begin; j < x.end; ++j)
      if (seen[j]) put(j, j + 1, keys, both);
  to = std::move(both);
}

Result<std::int32_t> common_lists(const std::vector<KeptRows>& sequences) {
  std::int32_t most = 1;
  for (const KeptRows& s : sequences) most = std::max(most, s.lists());
  for (const KeptRows& s : sequences)
    if (most % s.lists())
      return bad_argument(fmt::format("plan: sequences of {} and of {} lists: the one must divide the other", s.lists(), most));
  return most;
}

}  // namespace lacuna
