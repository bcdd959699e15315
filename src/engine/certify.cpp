// SPDX-License-Identifier: Apache-2.0
// The certificate of a session: each decoded row is bounded once its plan is lowered, and before it attends. Where more
// may be lost than the limit, a wider plan takes the plan's place.
#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

#include "engine/session.h"

namespace lacuna {
namespace {

// Why nothing is known of what `plan` leaves out; null: something is.
const char* why_no_bound(const Plan& plan, const op::Attend::Args& args) {
  if (args.bias) return "certify: the mask adds to the scores, which bounds of keys do not see";
  if (!(args.scale > 0 && args.scale < 1e6f)) return "certify: bounds need a scale above 0 and below 1e6";
  if (pv_skip_of(plan)) return "certify: what pv_skip leaves out is not bounded";
  return nullptr;
}

// As a float, and not less.
float rounded_up(double bound) {
  return bound > 0 ? std::min(1.0f, std::nextafter(static_cast<float>(bound), 2.0f)) : 0.0f;
}

}  // namespace

Status Session::Impl::open_certificate() {
  const double limit = options.certify;
  if (!(limit >= 0 && limit <= 1))
    return bad_argument(fmt::format("certify: got {}, need 0 (none) or a share up to 1", limit));
  if (limit == 0) return {};
  if (contract)
    return bad_argument(
        fmt::format("certify {} and a contract: a session keeps one of them; certify holds in every decoded row, "
                    "max_loss and max_error in the mean",
                    limit));
  if (chooser)
    return bad_argument(
        "certify and auto: auto chooses by what methods are seen to lose; name the method to be certified");
  certificate = std::make_unique<CertificateCount>(limit);
  return {};
}

void Session::Impl::tell_certified(const AttendCall& c, const MaskEntry& mask, const Segment& s, bool counted,
                                   std::span<const double> bounds) {
  const auto heads = static_cast<std::int64_t>(bounds.size()), rows = c.q.tokens();
  if (c.lost_at_most)
    for (std::int64_t h = 0; h < heads; ++h)
      std::fill(c.lost_at_most + h * rows + s.row_begin, c.lost_at_most + h * rows + s.row_end,
                rounded_up(bounds[static_cast<std::size_t>(h)]));
  if (!counted || s.rows() != 1) return;
  const std::int64_t visible = mask.visible.visible_keys(s.row_begin);
  certificate->pairs(static_cast<double>(visible * heads), 0);
  if (visible < kMinAuditedKeys) return;
  for (const double bound : bounds) certificate->add(bound);
}

void Session::Impl::certify_lossless(const AttendCall& c, const MaskEntry& mask, bool counted) {
  const std::vector<double> nothing(static_cast<std::size_t>(c.q.heads()), 0.0);
  for (const Segment& s : mask.visible.segments()) tell_certified(c, mask, s, counted, nothing);
}

bool Session::Impl::certify(const AttendCall& c, const MaskEntry& mask, const Segment& s, const Plan& plan,
                            const op::Attend::Args& args, Plan& wider) {
  const auto start = std::chrono::steady_clock::now();
  double allowed = 0;
  for (std::int32_t i = s.row_begin; i < s.row_end; ++i) allowed += static_cast<double>(mask.visible.visible_keys(i));
  const bool all_kept = lowered.attended_pairs == allowed * lowered.heads && !pv_skip_of(plan);
  std::vector<double> bounds(static_cast<std::size_t>(args.hq), all_kept ? 0.0 : 1.0);
  bool widened = false;
  if (!all_kept && s.rows() == 1) {
    if (const char* unknown = why_no_bound(plan, args)) {
      note = unknown;
      widened = options.certify < 1;
      if (widened) wider = dense_plan(unknown), std::fill(bounds.begin(), bounds.end(), 0.0);
    } else {
      certified_row.bound(*this, args, side_of(c), lowered.view(), mask.visible.words(s.row_begin));
      widened = certified_row.keep_more(options.certify, wider);
      for (int h = 0; h < args.hq; ++h) bounds[static_cast<std::size_t>(h)] = certified_row.lost_at_most(h);
    }
  }
  tell_certified(c, mask, s, true, bounds);
  certificate->took(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return widened;
}

}  // namespace lacuna
