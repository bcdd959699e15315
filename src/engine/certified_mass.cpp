// SPDX-License-Identifier: Apache-2.0
// What a row keeps is weighed by op exact_mass; what it leaves out is bounded by side data.
#include <algorithm>
#include <cmath>

#include "engine/certified_row.h"
#include "op/exact_mass.h"
#include "op/side_scores.h"

namespace lacuna {
namespace {

// Parts of a mass as one logarithm. A part that is no number makes it none.
double log_of(const float* top, const float* sum, std::int64_t parts) {
  const double highest = *std::max_element(top, top + parts);
  double mass = 0;
  for (std::int64_t p = 0; p < parts; ++p)
    if (sum[p] != 0) mass += sum[p] * std::exp(top[p] - highest);
  return highest + std::log(mass);
}

double log_of_both(double a, double b) { return std::max(a, b) + std::log1p(std::exp(-std::fabs(a - b))); }

}  // namespace

void CertifiedRow::weigh_kept(Context& context) {
  op::ExactMass::Args a{.hq = args_.hq,
                        .hkv = args_.hkv,
                        .dk = args_.dk,
                        .n_cells = args_.n_cells,
                        .q = args_.q,
                        .q_head = args_.q_head,
                        .k = args_.k,
                        .k_type = args_.k_type,
                        .k_head = args_.k_head,
                        .k_cell = args_.k_cell,
                        .chosen = kept_.data(),
                        .scale = args_.scale,
                        .softcap = args_.softcap};
  const std::int64_t parts = a.parts();
  top_.resize(static_cast<std::size_t>(args_.hq * parts));
  sum_.resize(top_.size());
  a.top = top_.data(), a.sum = sum_.data();
  context.run<op::ExactMass>(a);
  size_.clear(), least_.clear();
  const int group = args_.hq / args_.hkv;
  for (int h = 0; h < args_.hq; ++h) {
    if (h % group == 0) largest_keys(by_.int8, args_.n_cells, h / group, largest_);
    size_.push_back(largest_sum(args_, h, largest_));
    double least =
        log_of(a.top + h * parts, a.sum + h * parts, parts) - mass_error(args_.dk, size_.back(), args_.softcap);
    if (args_.sinks && least > -INFINITY) least = log_of_both(least, args_.sinks[h]);
    least_.push_back(least);
  }
}

void CertifiedRow::bound_left_out(Context& context) {
  const auto ask = [&](op::SideQuery& a, std::int64_t columns, std::vector<float>& score) {
    a.hq = args_.hq, a.hkv = args_.hkv, a.dk = args_.dk, a.n_rows = 1, a.n_cells = args_.n_cells;
    a.q = args_.q, a.q_head = args_.q_head;
    a.visible = left_.data(), a.visible_head = tiles_;
    a.score_head = a.score_row = tiles_of(columns) * kTileKeys;
    score.resize(static_cast<std::size_t>(args_.hq * a.score_head));
    a.score = score.data();
  };
  op::Int8Scores::Args cells;
  ask(cells, args_.n_cells, cell_score_);
  cells.keys = by_.int8;
  cells.round_q = false;
  context.run<op::Int8Scores>(cells);
  op::PageScores::Args boxes;
  if (by_.pages.data) {
    ask(boxes, pages_, page_score_);
    boxes.pages = by_.pages;
    context.run<op::PageScores>(boxes);
  }
  most_.resize(static_cast<std::size_t>(pages_));
  parts_.resize(static_cast<std::size_t>(args_.hq));
  for (int h = 0; h < args_.hq; ++h) {
    const auto at = static_cast<std::size_t>(h);
    const LeftOutCells out{h, left(h), tiles_, page_, least_[at], size_[at]};
    bound_by_bytes(args_, out, by_.int8, cells.score + h * cells.score_head, most_);
    if (by_.pages.data) lower_by_boxes(args_, out, boxes.score + h * boxes.score_head, most_);
    parts_[at].clear();
    for (std::int32_t p = 0; p < pages_; ++p)
      if (most_[static_cast<std::size_t>(p)] > 0) parts_[at].push_back({most_[static_cast<std::size_t>(p)], p});
  }
}

}  // namespace lacuna
