// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/pick.h"

namespace lacuna::test {

// Calls body(kernel) for every kernel of a list that this machine has.
template <class Op, class Body>
void each_kernel(const kernel::KernelList<Op>& list, const Body& body) {
  for (const auto* k : list)
    if (missing_features(detect_features(), k->needs).empty()) body(*k);
}

}  // namespace lacuna::test
