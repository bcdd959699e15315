// SPDX-License-Identifier: Apache-2.0
// Seconds of a clock that never jumps, for differences.
#pragma once

#include <chrono>

namespace lacuna {

inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace lacuna
