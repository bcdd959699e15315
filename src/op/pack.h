// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op pack: copy n cells of a raw K or V tensor into their places in a packed one (kv/packed.h).
// Cell number i of the job goes from raw cell from[i] to packed cell to[i]; a null list means
// first + i. Other cells are left as they are; a packed buffer starts as zeros.
#pragma once

#include <cstdint>

#include "kv/packed.h"
#include "lacuna/dtype.h"

namespace lacuna::op {

struct Pack {
  static constexpr const char* kName = "pack";
  enum class Role : std::uint8_t { key, value };

  struct Args {
    Role role = Role::key;
    Dtype dtype = Dtype::f16;      // of the raw tensor
    const void* raw = nullptr;     // element (h, c, d) at h * head + c * cell + d
    std::int64_t head = 0, cell = 0;
    const std::int32_t* from = nullptr;
    const std::int32_t* to = nullptr;
    std::int64_t first = 0, n = 0;
    PackFormat format = PackFormat::none;
    std::int32_t heads = 0, dim = 0;
    void* packed = nullptr;
  };
};

}  // namespace lacuna::op
