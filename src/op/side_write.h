// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op side_write: bring the side data (kv/side.h) of n cells of a key cache up to date. Labels of these
// cells are made anew; of the pages, blocks and tiles of 4 or 8 bits that hold them, all of it, from the raw keys
// of all their cells. Everything else is left as it is.
#pragma once

#include <cstdint>

#include "kv/side.h"
#include "lacuna/dtype.h"

namespace lacuna::op {

struct SideWrite {
  static constexpr const char* kName = "side_write";

  struct Args {
    Dtype dtype = Dtype::f16;   // of the raw cache tensor
    const void* raw = nullptr;  // element (h, c, d) at h * head + c * cell + d, of the WHOLE cache
    std::int64_t head = 0, cell = 0;
    std::int32_t heads = 0, dim = 0;  // dim: 1..1024
    std::int64_t cells = 0;     // C
    // The cells that changed: cells[0 .. n) of the list, in any order (those of a page side by side are
    // its cheapest order), or first .. first + n - 1.
    const std::int32_t* list = nullptr;
    std::int64_t first = 0, n = 0;
    SideView to;                // written; kinds without data are passed over
  };
};

}  // namespace lacuna::op
