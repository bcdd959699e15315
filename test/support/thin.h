// SPDX-License-Identifier: Apache-2.0
// Sanitizers make every case five to twenty times dearer: tests that walk many take every kThin-th.
#pragma once

namespace lacuna::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kThin = 6;
#else
constexpr int kThin = 1;
#endif

}  // namespace lacuna::test
