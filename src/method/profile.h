// SPDX-License-Identifier: Apache-2.0
// Profile: what was found about a model offline, as a file: channel lists, thresholds, head patterns.
// One format for all methods:
//   {"format": "lacuna-profile", "version": 1, "slug": "double-sparsity",
//    "model": {"name", "n_layers", "hq", "hkv", "dk", "dv", "rope": {"layout", "base"}},
//    "params": {...}, "texts": {...}, "data": {...}}
// `params` and `data` are the method's own, `texts` says on what it was found. "tensors" is kept for a
// safetensors file beside this one; it must be null or absent.
//
// Files come from anywhere: sizes, types and ranges are checked before use, and what is wrong is an
// Error that names the place, what is there, what is needed and the mend.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "lacuna/result.h"
#include "method/model_facts.h"

namespace lacuna {

constexpr std::size_t kMostProfileBytes = std::size_t{16} << 20;

struct Profile {
  std::string slug;
  ModelFacts model;
  nlohmann::json params = nlohmann::json::object();
  nlohmann::json texts = nlohmann::json::object();
  nlohmann::json data = nlohmann::json::object();
};

Result<Profile> parse_profile(std::string_view text);
Result<Profile> read_profile(const std::string& path);  // errors begin with the path
std::string profile_text(const Profile& profile);
Status write_profile(const Profile& profile, const std::string& path);  // whole or not at all

nlohmann::json as_json(const ModelFacts& facts);
// `partial`: what is unknown may be so.
Result<ModelFacts> model_facts(const nlohmann::json& value, std::string_view where, bool partial = false);

// The text of a regular file of at most `most` bytes.
Result<std::string> read_small_file(const std::string& path, std::size_t most);
// Into a file beside it, then renamed: a reader sees the old text or the new one.
Status write_whole(const std::string& path, std::string_view text);
// JSON of at most 16 levels; an error instead of an exception.
Result<nlohmann::json> parse_json(std::string_view text);

// Readers for Method::use. `where` is the place as the error shall name it: "data.channels[3]".
Result<const nlohmann::json*> member(const nlohmann::json& object, std::string_view where, std::string_view key);
Status check_list(const nlohmann::json& value, std::string_view where, std::size_t n);  // exactly n entries
Result<std::int64_t> as_int(const nlohmann::json& value, std::string_view where, std::int64_t lo, std::int64_t hi);
Result<double> as_number(const nlohmann::json& value, std::string_view where, double lo, double hi);
Result<std::string> as_text(const nlohmann::json& value, std::string_view where, std::size_t longest);
Result<std::vector<std::int64_t>> as_ints(const nlohmann::json& value, std::string_view where, std::size_t n,
                                          std::int64_t lo, std::int64_t hi);
Result<std::vector<double>> as_numbers(const nlohmann::json& value, std::string_view where, std::size_t n, double lo,
                                       double hi);
// 0 .. n-1, each once.
Result<std::vector<std::int32_t>> as_permutation(const nlohmann::json& value, std::string_view where, std::size_t n);

}  // namespace lacuna
