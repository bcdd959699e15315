// SPDX-License-Identifier: Apache-2.0
#include "cli/machine.h"

#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <lacuna_commit.h>  // made at each build by cmake/commit.cmake

#include "base/machine.h"
#include "base/processor.h"
#include "cli/common.h"
#include "engine/pick.h"

namespace lacuna::cli {

std::string machine_words() {
  return fmt::format("{}, {} cores, {}", one_line(processor_name(), 80), usable_cores(), describe(detect_features()));
}

std::string built_commit() { return LACUNA_COMMIT; }

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

}  // namespace lacuna::cli
