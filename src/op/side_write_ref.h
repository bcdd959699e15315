// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/side_write.h"

namespace lacuna::op {

// The whole job, one number at a time. Every kernel makes the same bits (a NaN is a NaN).
void side_write_ref(const SideWrite::Args& a);

// Where things lie, in elements of their type: the layouts of kv/side.h.
std::int64_t page_offset(const PageBounds& x, std::int64_t page, int head, int channel, bool largest);
std::int64_t label_offset(const Labels& x, std::int64_t cell, int head, int i);
// In 32-bit words, word w of a cell; in halves, a channel's scale or zero in a tile.
std::int64_t int4_offset(const Int4Keys& x, std::int64_t cell, int head, std::int64_t w);
std::int64_t int4_range_offset(const Int4Keys& x, std::int64_t tile, int head, int channel, bool zero);
// In bytes, a cell's number of a channel; in floats, its scale; in halves, a channel's centre in a tile.
std::int64_t int8_offset(const Int8Keys& x, std::int64_t cell, int head, int channel);
std::int64_t int8_scale_offset(const Int8Keys& x, std::int64_t cell, int head);
std::int64_t int8_centre_offset(const Int8Keys& x, std::int64_t tile, int head, int channel);

}  // namespace lacuna::op
