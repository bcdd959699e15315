// SPDX-License-Identifier: Apache-2.0
// Session as a calibrator's feeder: the state of a calibration, and what it found, as text.
#include <algorithm>

#include <fmt/format.h>

#include "engine/registry.h"
#include "engine/session.h"

namespace lacuna {

Result<std::unique_ptr<Calibrator>> make_calibrator(const Method& method, const MakeOptions& options) {
  if (auto calibrator = method.calibrator()) return calibrator;
  std::vector<std::string_view> others;
  for (const auto& e : options.methods)
    if (e.make()->calibrator()) others.push_back(e.card->slug);
  return unsupported(fmt::format("{} has nothing to calibrate; methods that do: {}", method.card().slug,
                                 others.empty() ? "none yet" : fmt::format("{}", fmt::join(others, ", "))));
}

Status Session::Impl::observe(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args, bool apart) {
  const Timed timed(*this, Verb::account);
  constexpr int kMostLayers = 4096;
  if (c.layer < 0 || c.layer >= kMostLayers) return bad_argument(fmt::format("layer: got {}, need 0..{}", c.layer, kMostLayers - 1));
  seen.hq = args.hq;
  seen.hkv = args.hkv;
  seen.dk = args.dk;
  seen.dv = args.dv;
  seen.n_layers = std::max({seen.n_layers, n_layers, c.layer + 1});
  if (c.rope.layout != RopeLayout::unknown) seen.rope.layout = c.rope.layout;
  seen.rope.base = std::max(seen.rope.base, c.rope.base);  // of the layers without a window of their own
  for (const auto& s : mask.visible.segments())
    if (s.rows() > 0 && s.n_keys > 0 && causal(mask.visible, s)) {
      SegmentKeys keys;
      LACUNA_CHECK(calibrator->observe(view_of(c, mask, s, args, keys), *this));
      if (!apart) LACUNA_CHECK(try_methods(c, mask, s, args));
    }
  return {};
}

namespace {
Error no_calibration() { return bad_argument("this session does not calibrate: open it with Options::calibrate"); }
}  // namespace

Result<std::string> Session::Impl::calibration() const {
  if (!calibrator) return no_calibration();
  return nlohmann::json{{"model", as_json(seen)}, {"state", calibrator->save()}}.dump();
}

Status Session::Impl::load_calibration(std::string_view text) {
  if (!calibrator) return no_calibration();
  auto parsed = parse_json(text);
  if (!parsed.ok()) return parsed.error();
  auto model = member(parsed.value(), "calibration", "model");
  if (!model.ok()) return model.error();
  auto state = member(parsed.value(), "calibration", "state");
  if (!state.ok()) return state.error();
  auto facts = model_facts(*model.value(), "calibration.model", true);
  if (!facts.ok()) return facts.error();
  LACUNA_CHECK(calibrator->load(*state.value()));
  seen = facts.value();
  return open_trials();
}

Result<std::string> Session::Impl::finish_calibration() const {
  if (!calibrator) return no_calibration();
  auto data = calibrator->finish();
  if (!data.ok()) return data.error();
  nlohmann::json params = nlohmann::json::object();
  for (const auto& p : describe_params(*method))
    if (p.name != "profile" && !p.value.empty()) params[p.name] = p.value;
  return nlohmann::json{{"model", as_json(seen)}, {"params", params}, {"data", data.value()}}.dump();
}

Result<std::string> Session::calibration() const { return impl_->calibration(); }
Status Session::load_calibration(std::string_view text) { return impl_->load_calibration(text); }
Result<std::string> Session::finish_calibration() const { return impl_->finish_calibration(); }

}  // namespace lacuna
