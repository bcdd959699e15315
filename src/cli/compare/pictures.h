// SPDX-License-Identifier: Apache-2.0
// The pictures of compare's page, one file each, as <figure>; "" when there is nothing to show.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

// Against length: of a whole document.
std::string speedup_picture(const nlohmann::ordered_json& document);  // picture_lengths.cpp
std::string attention_picture(const nlohmann::ordered_json& document);
std::string kv_read_picture(const nlohmann::ordered_json& document);
std::string kv_memory_picture(const nlohmann::ordered_json& document);

// Of one of its lengths.
std::string time_picture(const nlohmann::ordered_json& document,
                         const nlohmann::ordered_json& length);  // picture_time.cpp
std::string steps_picture(const nlohmann::ordered_json& document, const nlohmann::ordered_json& length);
std::string loss_picture(const nlohmann::ordered_json& document,
                         const nlohmann::ordered_json& length);  // picture_loss.cpp
std::string density_picture(const nlohmann::ordered_json& document,
                            const nlohmann::ordered_json& length);  // picture_density.cpp

// Of runs with --patterns: the density of each head of each layer, one map per method, and what each method kept of a
// few heads, one <figure> per method.
std::string heads_picture(const nlohmann::ordered_json& document, const nlohmann::ordered_json& length);  // picture_heads.cpp
std::string pattern_pictures(const nlohmann::ordered_json& document,
                             const nlohmann::ordered_json& length);  // picture_patterns.cpp

}  // namespace lacuna::cli
