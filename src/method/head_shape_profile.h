// SPDX-License-Identifier: Apache-2.0
// Head shapes as the `data` of a profile (minference), written and read:
//   {"layers", "heads", "unit": "share" | "count", "shapes": [layers] of null (stays dense) or [heads] of
//    {"kind": "a-shape",        "sink", "window"}       sink is a count always
//    {"kind": "block-sparse",   "blocks"}               of those a row block may see
//    {"kind": "vertical-slash", "vertical", "slash"}    columns and distances; shares: beyond the forced ones
//    {"kind": "full"}}                                  and in each "lost", found when it was chosen
#pragma once

#include <vector>

#include "block/calibrate/shape_search.h"
#include "method/profile.h"

namespace lacuna {

struct HeadShapeList {
  std::int32_t heads = 0;
  bool counts = false;                            // sizes are counts, else shares
  std::vector<block::ShapeSearch::Found> shapes;  // [layers][heads]
  // full for a layer or head that is not in it.
  block::ShapeSearch::Found at(int layer, std::int32_t h) const {
    const std::size_t i =
        static_cast<std::size_t>(layer) * static_cast<std::size_t>(heads) + static_cast<std::size_t>(h);
    return h < heads && i < shapes.size() ? shapes[i] : block::ShapeSearch::Found{};
  }
};

// A head's entry, in figures to be read by people.
nlohmann::json head_shape_entry(const block::ShapeSearch::Found& f);
// The list of a profile. Its layers and heads must be those of the profile's own model: the session holds
// that model against the calls.
Result<HeadShapeList> head_shapes(const Profile& p);

}  // namespace lacuna
