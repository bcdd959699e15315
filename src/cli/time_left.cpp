// SPDX-License-Identifier: Apache-2.0
#include "cli/time_left.h"

#include <fmt/format.h>

namespace lacuna::cli {

void TimeLeft::plan(const std::string& kind, double tokens) {
  // Products with weights grow with the length, attention with its square: about equal shares at 8,192 tokens.
  jobs_.push_back({kind, tokens * (1 + tokens / 8192)});
}

void TimeLeft::done(double seconds) {
  if (done_ == jobs_.size()) return;
  const Job& job = jobs_[done_++];
  rate_[job.kind] = seconds / job.work;
}

std::string TimeLeft::words() const {
  if (rate_.empty() || done_ == jobs_.size()) return "";
  double mean = 0;
  for (const auto& [kind, rate] : rate_) mean += rate / static_cast<double>(rate_.size());
  double s = 0;
  for (std::size_t i = done_; i < jobs_.size(); ++i) {
    const auto known = rate_.find(jobs_[i].kind);
    s += jobs_[i].work * (known == rate_.end() ? mean : known->second);
  }
  return s < 90 ? fmt::format("about {:.0f} s left", s) : fmt::format("about {:.0f} min left", s / 60);
}

}  // namespace lacuna::cli
