// SPDX-License-Identifier: Apache-2.0
// What `lacuna compare --task` prints, within 80 columns but for the closing sentence, and the page it writes.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "cli/compare/series.h"

namespace lacuna::cli::task {

std::string task_text(const nlohmann::ordered_json& document);
std::string task_html(const nlohmann::ordered_json& document);

// picture_depth.cpp: a method's scores by depth and length, as <figure>; "" where no sample has a depth.
std::string depth_picture(const nlohmann::ordered_json& document, const Series& method);

}  // namespace lacuna::cli::task
