// SPDX-License-Identifier: Apache-2.0
#include "account/certificate.h"

#include <algorithm>
#include <cmath>

namespace lacuna {
namespace {

// Sums of up to 2^30 parts in double are off by less than this.
constexpr double kRounding = 1e-6;

double as_share(double multiple) {
  if (!(multiple < INFINITY)) return 1.0;  // NaN too
  return std::min(1.0, multiple / (1.0 + multiple));
}

}  // namespace

double lost_at_most(std::span<const LeftOut> parts) {
  double sum = 0;
  for (std::size_t i = parts.size(); i-- > 0;) sum += parts[i].most;
  return as_share(sum * (1 + kRounding));
}

std::size_t largest_to_keep(std::vector<LeftOut>& parts, double limit) {
  for (LeftOut& x : parts) x.most = std::isnan(x.most) ? INFINITY : x.most;
  std::sort(parts.begin(), parts.end(),
            [](const LeftOut& a, const LeftOut& b) { return a.most != b.most ? a.most > b.most : a.page < b.page; });
  // From the smallest on, as above: rounding is monotone, so whatever else of the rest is kept, its sum is no larger.
  double sum = 0;
  std::size_t keep = parts.size();
  if (limit < 1 && keep > 0 && parts.front().most == INFINITY) return keep;
  while (keep > 0 && as_share((sum + parts[keep - 1].most) * (1 + kRounding)) <= limit) sum += parts[--keep].most;
  return keep;
}

void CertificateCount::add(double bound) {
  ++sum_.rows;
  sum_.mean += bound;
  sum_.max = std::max(sum_.max, bound);
  sum_.within += bound <= sum_.limit ? 1.0 : 0.0;
}

CertificateReport CertificateCount::report() const {
  CertificateReport r = sum_;
  const double rows = static_cast<double>(std::max<std::int64_t>(r.rows, 1));
  r.mean /= rows;
  r.within = r.rows ? r.within / rows : 1.0;
  r.kept_for_it = visible_ > 0 ? kept_for_it_ / visible_ : 0.0;
  return r;
}

}  // namespace lacuna
