// SPDX-License-Identifier: Apache-2.0
// Where and with what something was measured, in words for files.
#pragma once

#include <string>

namespace lacuna::cli {

// "Intel(R) Xeon(R) ..., 2 cores, AVX2 AVX-512 AMX-BF16"
std::string machine_words();
// The commit this program was built from, "-dirty" behind it if files had changed; "" when unknown.
std::string built_commit();
// Now, as "2026-11-27T02:45:30Z".
std::string utc_now();

}  // namespace lacuna::cli
