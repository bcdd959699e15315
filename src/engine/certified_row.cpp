// SPDX-License-Identifier: Apache-2.0
#include "engine/certified_row.h"

#include <algorithm>

#include "block/candidates.h"

namespace lacuna {
namespace {

constexpr std::int32_t kPage = 16;  // cells, where the method has no pages

// The cells that the list of a single row names.
void named_cells(const TileRuns& runs, std::int32_t head, std::uint32_t* words) {
  const std::int32_t* list = runs.list(head, 0);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = runs.runs[r];
    const std::uint32_t word = run.bits < 0 ? ~0u : runs.words[std::int64_t{run.bits} * runs.block_q];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile) {
      if (tile < runs.first_gathered) {
        words[tile] |= word;
        continue;
      }
      for (int b = 0; b < kTileKeys; ++b)
        if (word >> b & 1u) words[runs.cell(tile, b) / kTileKeys] |= 1u << (runs.cell(tile, b) % kTileKeys);
    }
  }
}

}  // namespace

void CertifiedRow::bound(Context& context, const op::Attend::Args& args, const SideView& by, const TileRuns& runs,
                         const std::uint32_t* visible) {
  args_ = args;
  by_ = by;
  tiles_ = tiles_of(args.n_cells);
  page_ = by.pages.data ? by.pages.page : kPage;
  pages_ = (args.n_cells + page_ - 1) / page_;
  // A list that a KV head's query heads share stays shared: its cells are read once for all of them.
  lists_ = runs.heads <= args.hkv ? args.hkv : args.hq;
  find_cells(runs, visible);
  weigh_kept(context);
  bound_left_out(context);
}

void CertifiedRow::find_cells(const TileRuns& runs, const std::uint32_t* visible) {
  kept_.assign(static_cast<std::size_t>(args_.hq * tiles_), 0u);
  left_.resize(kept_.size());
  for (int h = 0; h < args_.hq; ++h) {
    named_cells(runs, h, kept(h));
    for (std::int64_t t = 0; t < tiles_; ++t) left(h)[t] = visible[t] & ~kept(h)[t];
  }
}

bool CertifiedRow::keep_more(double limit, Plan& wider) {
  Ranges lists{.of = Ranges::Of::cells,
               .heads = lists_,
               .block_q = 1,
               .n_rows = 1,
               .n = args_.n_cells,
               .row_ptr = {},
               .ranges = {}};
  const int heads = args_.hq / lists_;
  bool more = false;
  for (int first = 0; first < args_.hq; first += heads) {
    more = keep_pages(first, heads, limit) || more;
    lists.row_ptr.push_back(static_cast<std::int32_t>(lists.ranges.size()));
    block::append_cells({kept(first), static_cast<std::size_t>(tiles_)}, lists.ranges);
    lists.row_ptr.push_back(static_cast<std::int32_t>(lists.ranges.size()));
  }
  if (!more) return false;
  const bool all = std::all_of(parts_.begin(), parts_.end(), [](const auto& parts) { return parts.empty(); });
  wider = all ? dense_plan("") : plan_of(std::move(lists));
  return true;
}

// For heads that share a list: what one of them needs, all of them keep. False: none needs more.
bool CertifiedRow::keep_pages(int first, int heads, double limit) {
  std::vector<bool> keep(static_cast<std::size_t>(pages_), false);
  bool more = false;
  for (int h = first; h < first + heads; ++h) {
    std::vector<LeftOut>& parts = parts_[static_cast<std::size_t>(h)];
    const std::size_t n = largest_to_keep(parts, limit);
    for (std::size_t i = 0; i < n; ++i) keep[static_cast<std::size_t>(parts[i].page)] = true;
    more = more || n > 0;
  }
  const auto kept_now = [&](const LeftOut& x) { return bool{keep[static_cast<std::size_t>(x.page)]}; };
  for (int h = first; h < first + heads; ++h) {
    std::vector<LeftOut>& parts = parts_[static_cast<std::size_t>(h)];
    for (const LeftOut& x : parts) {
      if (!kept_now(x)) continue;
      const std::int64_t begin = std::int64_t{x.page} * page_, end = begin + page_;
      for (std::int64_t t = begin / kTileKeys; t * kTileKeys < end && t < tiles_; ++t)
        kept(h)[t] |= left(h)[t] & bits_between(t * kTileKeys, begin, end);
    }
    std::erase_if(parts, kept_now);
  }
  return more;
}

}  // namespace lacuna
