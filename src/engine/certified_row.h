// SPDX-License-Identifier: Apache-2.0
// One decoded row under a certificate (account/certificate.h): the cells that each query head keeps of those it sees,
// the least that they weigh, and the most that the others can, page by page; and which pages must be kept besides.
#pragma once

#include <cstdint>
#include <vector>

#include "account/certificate.h"
#include "engine/key_bounds.h"
#include "method/method.h"
#include "op/attend.h"
#include "op/context.h"
#include "pattern/tile_runs.h"

namespace lacuna {

class CertifiedRow {
 public:
  // Bounds what a row of `args` loses with the lists `runs`; visible: words of the cells it sees; by: has keys in 8
  // bits, and pages if the method wants them. What they point to must live on.
  void bound(Context& context, const op::Attend::Args& args, const SideView& by, const TileRuns& runs,
             const std::uint32_t* visible);
  // Lets heads keep pages until none can lose more than `limit`. False: none could. Else `wider` is the plan that does.
  bool keep_more(double limit, Plan& wider);
  double lost_at_most(int head) const { return lacuna::lost_at_most(parts_[static_cast<std::size_t>(head)]); }

 private:
  void find_cells(const TileRuns& runs, const std::uint32_t* visible);
  // engine/certified_mass.cpp
  void weigh_kept(Context& context);
  void bound_left_out(Context& context);
  bool keep_pages(int first_head, int heads, double limit);

  std::uint32_t* kept(int head) { return kept_.data() + head * tiles_; }
  std::uint32_t* left(int head) { return left_.data() + head * tiles_; }

  op::Attend::Args args_;
  SideView by_;
  std::int64_t tiles_ = 0, pages_ = 0;
  std::int32_t page_ = 0;                    // cells that are kept or left out together
  int lists_ = 0;                            // of a wider plan: one per KV head, or one per query head
  std::vector<std::uint32_t> kept_, left_;   // [hq][tiles]
  std::vector<double> size_, least_;         // [hq]: largest_sum; logarithm of what is kept
  std::vector<std::vector<LeftOut>> parts_;  // [hq], what is left out, by pages
  std::vector<double> largest_, most_;       // working memory: of a KV head's channels, of a head's pages
  std::vector<float> top_, sum_, cell_score_, page_score_;
};

}  // namespace lacuna
