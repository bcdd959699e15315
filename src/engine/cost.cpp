// SPDX-License-Identifier: Apache-2.0
#include "engine/cost.h"

#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/cache_dir.h"
#include "base/processor.h"
#include "engine/pick.h"
#include "method/profile.h"

namespace lacuna {
namespace {

constexpr int kVersion = 1;  // of the file; raise it when kernels or methods change what they cost
constexpr double kLongest = 1e3;  // seconds: no part of a call takes longer

nlohmann::json as_json(const PhaseCost& p) {
  nlohmann::json candidates = nlohmann::json::array();
  for (const auto& c : p.candidates)
    candidates.push_back({{"spec", c.spec}, {"select", {c.select.call, c.select.key, c.select.pair}}, {"pair", c.pair}});
  return {{"call", p.call}, {"pair", p.pair}, {"candidates", candidates}};
}

Status read_number(const nlohmann::json& object, std::string_view where, const char* key, double& to) {
  const auto value = member(object, where, key);
  if (!value.ok()) return value.error();
  const auto number = as_number(*value.value(), fmt::format("{}.{}", where, key), 0, kLongest);
  if (!number.ok()) return number.error();
  to = number.value();
  return {};
}

Status read_phase(const nlohmann::json& file, const char* name, const std::vector<std::string>& specs, PhaseCost& to) {
  const auto phase = member(file, "costs", name);
  if (!phase.ok()) return phase.error();
  LACUNA_CHECK(read_number(*phase.value(), name, "call", to.call));
  LACUNA_CHECK(read_number(*phase.value(), name, "pair", to.pair));
  const auto list = member(*phase.value(), name, "candidates");
  if (!list.ok()) return list.error();
  LACUNA_CHECK(check_list(*list.value(), fmt::format("{}.candidates", name), specs.size()));
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::string where = fmt::format("{}.candidates[{}]", name, i);
    const nlohmann::json& entry = (*list.value())[i];
    const auto spec = member(entry, where, "spec");
    if (!spec.ok()) return spec.error();
    if (*spec.value() != specs[i]) return bad_file(fmt::format("{}.spec: got {}, need '{}'", where, spec.value()->dump(), specs[i]));
    CandidateCost c;
    c.spec = specs[i];
    LACUNA_CHECK(read_number(entry, where, "pair", c.pair));
    const auto select = member(entry, where, "select");
    if (!select.ok()) return select.error();
    const auto three = as_numbers(*select.value(), where + ".select", 3, 0, kLongest);
    if (!three.ok()) return three.error();
    c.select = {three.value()[0], three.value()[1], three.value()[2]};
    to.candidates.push_back(std::move(c));
  }
  return {};
}

std::string machine_text() { return fmt::format("{}, {} cores", processor_name(), usable_cores()); }

}  // namespace

std::string CallShape::text() const {
  return fmt::format("hq={} hkv={} dk={} dv={} k={} v={} precision={} workers={} kernel={} {}", hq, hkv, dk, dv, name_of(k_type), name_of(v_type),
                     precision == Precision::fast ? "fast" : "high", workers, kernel.empty() ? "best" : kernel, describe(features));
}

std::string cost_file(const CallShape& shape, const std::vector<std::string>& prefill, const std::vector<std::string>& decode) {
  const std::string folder = cache_dir();
  if (folder.empty()) return "";
  const std::string key = fmt::format("{}|{}|{}|{}|{}", kVersion, machine_text(), shape.text(), fmt::join(prefill, ","), fmt::join(decode, ","));
  return fmt::format("{}/costs/{:016x}.json", folder, std::hash<std::string>{}(key));
}

std::string cost_text(const CostModel& costs, const CallShape& shape) {
  const nlohmann::ordered_json file = {{"format", "lacuna-costs"}, {"version", kVersion}, {"machine", machine_text()},
                                       {"shape", shape.text()}, {"unit", "seconds"},
                                       {"prefill", as_json(costs.prefill)}, {"decode", as_json(costs.decode)}};
  return file.dump(1) + "\n";
}

Result<CostModel> parse_costs(std::string_view text, const CallShape& shape, const std::vector<std::string>& prefill,
                              const std::vector<std::string>& decode) {
  const auto parsed = parse_json(text);
  if (!parsed.ok()) return parsed.error();
  const nlohmann::json& file = parsed.value();
  const nlohmann::json need[][2] = {{"format", "lacuna-costs"}, {"version", kVersion}, {"machine", machine_text()}, {"shape", shape.text()}};
  for (const auto& [key, value] : need) {
    const auto got = member(file, "costs", key.get<std::string>());
    if (!got.ok()) return got.error();
    if (*got.value() != value)
      return bad_file(fmt::format("costs.{}: got {}, need {}", key.get<std::string>(), got.value()->dump(), value.dump()));
  }
  CostModel costs;
  LACUNA_CHECK(read_phase(file, "prefill", prefill, costs.prefill));
  LACUNA_CHECK(read_phase(file, "decode", decode, costs.decode));
  return costs;
}

}  // namespace lacuna
