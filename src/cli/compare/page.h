// SPDX-License-Identifier: Apache-2.0
// The page that `lacuna compare --html` writes: what compare_table.h says, and pictures of it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

// `document`: compare_document.h. Runs that failed are named with their reason; pictures leave them out.
std::string compare_html(const nlohmann::ordered_json& document);

}  // namespace lacuna::cli
