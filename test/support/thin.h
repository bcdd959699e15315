// SPDX-License-Identifier: Apache-2.0
// Sanitizers make every case five to twenty times dearer: tests that walk many take every kThin-th.
#pragma once

namespace lacuna::test {

#if defined(__has_feature)  // clang's way to say it
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LACUNA_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(LACUNA_SANITIZED)
constexpr int kThin = 6;
#else
constexpr int kThin = 1;
#endif

}  // namespace lacuna::test
