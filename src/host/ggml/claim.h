// SPDX-License-Identifier: Apache-2.0
// Which operations of a graph are ours. One place says so, for the scheduler that asks and for the
// backend that runs them.
#pragma once

#include "host/ggml/abi.h"

namespace lacuna::ggml {

enum class Claim {
  none,     // not ours, or declined (why is set for attention)
  nothing,  // a view: no work
  attend,
  write_rows,
  rotate,
};

// `why` is set when attention is declined, or a cache write that it would need.
Claim claim_of(const Tensor& op, bool own_buffers, const char** why);

}  // namespace lacuna::ggml
