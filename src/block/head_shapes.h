// SPDX-License-Identifier: Apache-2.0
// Shapes of attention heads (MInference, arXiv:2407.02490) and the patterns that come of them: the
// estimates are made for those heads alone that take them.
//   vertical-slash  exact attention of the last rows, summed over columns and over diagonals: the best lines
//   block-sparse    mean queries times mean keys: the best blocks of each row block, and those of its own keys
//   a-shape         sinks and a window (pattern Window: nothing to estimate)
#pragma once

#include <cstdint>
#include <span>

#include "block/budget/top_mass.h"
#include "op/attention_view.h"
#include "op/context.h"
#include "pattern/pattern.h"

namespace lacuna::block {

constexpr std::int32_t kShapeBlock = 64;  // rows of a row block, and width of a slash line

enum class HeadKind : std::uint8_t { full, a_shape, block_sparse, vertical_slash };

// One head's shape, with the counts of one call.
struct HeadShape {
  HeadKind kind = HeadKind::full;
  std::int64_t columns = 0;  // vertical-slash: columns; a-shape: sinks
  std::int64_t reach = 0;    // vertical-slash: distances; a-shape: window; block-sparse: blocks of a row block
  double share = 0;          // block-sparse: of the blocks that a row block may see; 0 = `reach` of them
};

struct Lines {
  std::int64_t last_rows = 64;
  std::int64_t sink = 30, window = 100;  // first columns and nearest distances, always kept
};

// The lines of the heads that are vertical-slash; other heads' lists are empty.
Ranges stripes_of(const AttentionView& x, std::span<const HeadShape> shapes, const Lines& lines, Context& context);
// The blocks of the heads that are block-sparse; other heads' lists are empty.
BlockMap blocks_of(const AttentionView& x, std::span<const HeadShape> shapes, Context& context);

// The blocks of row block u by their scores [key blocks], ascending in `kept`; both have room for all of
// them. Returns how many.
std::int32_t best_blocks(const Grid& g, const HeadShape& shape, const float* score, std::int32_t u, float* work,
                         std::int32_t* kept);

}  // namespace lacuna::block
