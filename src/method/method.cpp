// SPDX-License-Identifier: Apache-2.0
#include "method/method.h"

#include <fmt/format.h>

namespace lacuna {

Status Method::preset(std::string_view name) {
  if (name == "auto" || name == "paper") return {};
  return unknown_name(fmt::format("{}.preset: got '{}', need auto or paper", card().slug, name));
}

SideSpec Method::side(int) const { return {}; }

void AttentionView::ask(op::SideQuery& a) const {
  a.hq = grid.heads;
  a.hkv = hkv;
  a.dk = dk;
  a.n_rows = grid.n_rows;
  a.n_cells = n_cells;
  a.q = q;
  a.q_head = q_head;
  a.q_row = q_row;
  a.visible = visible;
  a.visible_row = visible_row;
}

}  // namespace lacuna
