// SPDX-License-Identifier: Apache-2.0
// Sanitizers make every case five to twenty times dearer: tests that walk many take every kThin-th.
#pragma once

#include <cstddef>

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

// Says of one case after another whether a kernel takes it: all, and under sanitizers every seventh, each kernel of a list
// beginning with another one. Of nested loops none may have a length that seven divides: then every kernel sees every value of
// every loop. Numbers are judged by all cases in the other builds.
template <class List, class Kernel>
class Turns {
 public:
  Turns(const List& list, const Kernel* k) {
    for (const auto* other : list) {
      if (other == k) break;
      ++at_;
    }
  }
  bool mine() { return kThin == 1 || at_++ % 7 == 0; }

 private:
  std::size_t at_ = 0;
};

}  // namespace lacuna::test
