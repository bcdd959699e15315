// SPDX-License-Identifier: Apache-2.0
// Lists of blocks from plans. Of every block of rows it is counted how many pairs of each key block are kept and how
// many the diagonal lets see; equal numbers make a whole block, others one with bits. Rows that keep the same are
// counted together up to where the diagonal parts them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <unordered_map>

#include <fmt/format.h>

#include "engine/kept_rows.h"
#include "engine/lower.h"
#include "engine/plan_words.h"

namespace lacuna {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 29;  // rows and keys, as kernels count

// Kernels' blocks: as wide as the plan's where those are of 128, else the finer ones.
void choose_blocks(const std::vector<Plan>& plans, BlockLists& to) {
  to.block_q = to.block_k = 128;
  for (const Plan& plan : plans)
    for (const Pattern& p : plan.patterns) {
      const auto* b = std::get_if<BlockMap>(&p);
      const auto* r = std::get_if<Ranges>(&p);
      if ((b && b->block_q != 128) || (r && r->block_q != 128)) to.block_q = 64;
      if (!std::holds_alternative<Dense>(p) && !(b && b->block_k % 128 == 0)) to.block_k = 64;
    }
}

class Lister {
 public:
  Lister(const Allowed& allowed, BlockLists& to) : allowed_(allowed), to_(to) {
    const auto columns = static_cast<std::size_t>((allowed.keys + to.block_k - 1) / to.block_k);
    kept_.resize(columns);
    is_near_.resize(columns);
  }

  // Appends the list of rows [begin, end).
  Status add(const KeptRows& rows, std::int32_t list, std::int32_t begin, std::int32_t end) {
    near_.clear();
    classes_.clear();
    for (std::int32_t i = begin; i < end;) {
      const std::int32_t after = rows.next(list, i, end);
      classes_.push_back({i, after, {}});
      rows.ranges(list, i, classes_.back().ranges);
      count(rows, classes_.back());
      i = after;
    }
    std::sort(near_.begin(), near_.end());
    for (const std::int32_t c : near_) {
      if (kept_[static_cast<std::size_t>(c)] > 0) {
        const bool whole = kept_[static_cast<std::size_t>(c)] == visible(rows, c, begin, end);
        to_.columns.push_back(c);
        to_.bits.push_back(whole ? -1 : number_of(c, begin));
        partial_ = partial_ || !whole;
      }
      kept_[static_cast<std::size_t>(c)] = 0;
      is_near_[static_cast<std::size_t>(c)] = 0;
    }
    if (to_.columns.size() > std::numeric_limits<std::int32_t>::max() || masks_.size() > kMostMasks)
      return unsupported(fmt::format("plan: more than 2^31 blocks, or {} masks of blocks in part: too many for lists; use fewer "
                                     "lists, or blocks that lie on multiples of 64", kMostMasks));
    return {};
  }
  // Whole blocks alone need no bits.
  void finish() {
    if (!partial_) to_.bits.clear();
  }

 private:
  struct Class {
    std::int32_t begin, end;
    std::vector<Range> ranges;
  };
  static constexpr std::size_t kMostMasks = 1 << 22;

  std::int64_t first_key(std::int64_t c) const { return c * to_.block_k; }
  std::int64_t end_key(std::int64_t c) const { return std::min(allowed_.keys, (c + 1) * to_.block_k); }

  void count(const KeptRows& rows, const Class& x) {
    const std::int64_t all_see = rows.seen(x.begin), last_sees = rows.seen(x.end - 1);
    for (const Range& r : x.ranges)
      for (std::int64_t c = r.begin / to_.block_k; first_key(c) < std::min<std::int64_t>(r.end, last_sees); ++c) {
        const std::int64_t from = std::max<std::int64_t>(r.begin, first_key(c)), to = std::min<std::int64_t>(r.end, end_key(c));
        if (!is_near_[static_cast<std::size_t>(c)]) near_.push_back(static_cast<std::int32_t>(c));
        is_near_[static_cast<std::size_t>(c)] = 1;
        std::int64_t& sum = kept_[static_cast<std::size_t>(c)];
        if (to <= all_see) {
          sum += (x.end - x.begin) * (to - from);
          continue;
        }
        for (std::int32_t i = x.begin; i < x.end; ++i) sum += std::max<std::int64_t>(0, std::min(to, rows.seen(i)) - from);
      }
  }

  std::int64_t visible(const KeptRows& rows, std::int64_t c, std::int32_t begin, std::int32_t end) const {
    if (rows.seen(begin) >= end_key(c)) return (end - begin) * (end_key(c) - first_key(c));
    std::int64_t sum = 0;
    for (std::int32_t i = begin; i < end; ++i) sum += std::max<std::int64_t>(0, std::min(end_key(c), rows.seen(i)) - first_key(c));
    return sum;
  }

  // The number of the mask of block c, which equal blocks share. The diagonal is not in it.
  std::int32_t number_of(std::int64_t c, std::int32_t begin) {
    const std::int64_t row_words = to_.block_k / 32;
    mask_.assign(static_cast<std::size_t>(to_.block_q * row_words), 0);
    for (const Class& x : classes_)
      for (const Range& r : x.ranges) {
        const std::int64_t from = std::max<std::int64_t>(r.begin, first_key(c)), to = std::min<std::int64_t>(r.end, end_key(c));
        for (std::int64_t w = 0; w < row_words; ++w)
          if (const std::uint32_t bits = bits_between(first_key(c) + 32 * w, from, to))
            for (std::int32_t i = x.begin; i < x.end; ++i) mask_[static_cast<std::size_t>((i - begin) * row_words + w)] |= bits;
      }
    const std::string key(reinterpret_cast<const char*>(mask_.data()), mask_.size() * sizeof(std::uint32_t));
    const auto [at, fresh] = masks_.emplace(key, static_cast<std::int32_t>(masks_.size()));
    if (fresh) to_.words.insert(to_.words.end(), mask_.begin(), mask_.end());
    return at->second;
  }

  const Allowed& allowed_;
  BlockLists& to_;
  std::vector<std::int64_t> kept_;     // pairs of each key block that the current rows keep
  std::vector<std::uint8_t> is_near_;  // it stands in near_
  std::vector<std::int32_t> near_;
  std::vector<Class> classes_;
  std::vector<std::uint32_t> mask_;
  std::unordered_map<std::string, std::int32_t> masks_;
  bool partial_ = false;
};

// One plan of the words of a sequence, checked.
Result<Plan> plan_of_part(std::span<const std::int32_t> words, const Allowed& allowed) {
  auto given = plans_from_words(words);
  if (!given.ok()) return given.error();
  if (given.value().plans.size() > 1 || (allowed.mask && !given.value().whole))
    return unsupported("plan: made by a method under a mask, it speaks of sequences of its own: lists of blocks need one of the whole call; "
                       "plan without the mask, or give blocks (Plan.from_map)");
  if (given.value().plans.empty()) return Plan{};  // of no rows
  Plan plan = std::move(given.value().plans.front());
  // The heads that it says it is for.
  auto heads = static_cast<std::int32_t>(std::max(plan.routes.size(), plan.pv_skip.size()));
  std::int32_t least = 0;
  for (const Pattern& p : plan.patterns) {
    const auto* b = std::get_if<BlockMap>(&p);
    const auto* r = std::get_if<Ranges>(&p);
    const std::int32_t own = b ? b->heads : r ? r->heads : 1;
    if (heads == 0 || (plan.routes.empty() && plan.pv_skip.empty())) heads = std::max(heads, own);
    if (own > 1 && (!least || own < least)) least = own;
  }
  heads = std::max(heads, 1);
  LACUNA_CHECK(check_plan(plan, {heads, allowed.rows, allowed.keys, 0}, least ? least : heads, allowed.keys));
  if (least && heads % least)
    return bad_argument(fmt::format("plan: {} lists for {} heads: need a divisor", least, heads));
  return plan;
}

Status check_allowed(const Allowed& a, std::size_t parts) {
  if (a.rows < 0 || a.keys < 0 || a.rows > kMost || a.keys > kMost)
    return bad_argument(fmt::format("plan: {} rows and {} keys, need 0..{}", a.rows, a.keys, kMost));
  if (parts < 1) return bad_argument("plan: of no sequence, need one or more");
  if (a.masks != 1 && parts != 1 && a.masks != static_cast<std::int32_t>(parts))
    return bad_argument(fmt::format("plan: of {} sequences, its mask of {}", parts, a.masks));
  return {};
}

}  // namespace

Result<BlockLists> block_lists(std::span<const std::span<const std::int32_t>> parts, const Allowed& allowed) {
  LACUNA_CHECK(check_allowed(allowed, parts.size()));
  std::vector<Plan> plans;
  for (const auto& words : parts) {
    auto plan = plan_of_part(words, allowed);
    if (!plan.ok()) return plan.error();
    plans.push_back(std::move(plan.value()));
  }
  BlockLists out;
  out.batches = std::max(static_cast<std::int32_t>(plans.size()), allowed.mask ? allowed.masks : 1);
  std::vector<KeptRows> sequences;
  for (std::int32_t b = 0; b < out.batches; ++b)
    sequences.emplace_back(plans[plans.size() == 1 ? 0 : static_cast<std::size_t>(b)], allowed, b);
  out.dense = std::all_of(sequences.begin(), sequences.end(), [](const KeptRows& s) { return s.dense(); });
  if (out.dense) return out;
  auto lists = common_lists(sequences);
  if (!lists.ok()) return lists.error();
  out.lists = lists.value();
  choose_blocks(plans, out);

  Lister lister(allowed, out);
  for (const KeptRows& rows : sequences)
    for (std::int32_t list = 0; list < out.lists; ++list) {
      out.row_ptr.push_back(static_cast<std::int32_t>(out.columns.size()));
      for (std::int32_t begin = 0; begin < allowed.rows; begin += out.block_q) {
        const std::int32_t own = list_of_head(rows.lists(), out.lists, list);
        LACUNA_CHECK(lister.add(rows, own, begin, std::min(allowed.rows, begin + out.block_q)));
        out.row_ptr.push_back(static_cast<std::int32_t>(out.columns.size()));
      }
    }
  lister.finish();
  page_lists(sequences, allowed, out);
  return out;
}

}  // namespace lacuna
