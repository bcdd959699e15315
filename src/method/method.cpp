// SPDX-License-Identifier: Apache-2.0
#include "method/method.h"

#include <fmt/format.h>

#include "method/calibrator.h"

namespace lacuna {

Status Method::preset(std::string_view name) {
  if (name == "auto" || name == "paper") return {};
  return unknown_name(fmt::format("{}.preset: got '{}', need auto or paper", card().slug, name));
}

Result<Plan> Method::plan_each(const AttentionView& x, std::span<const Method* const>, Context& context) const { return plan(x, context); }

Status Method::use(const Profile&) {
  return unsupported(fmt::format("{} takes no profile: leave out profile=", card().slug));
}

std::unique_ptr<Calibrator> Method::calibrator() const { return nullptr; }

SideSpec Method::side(int) const { return {}; }

}  // namespace lacuna
