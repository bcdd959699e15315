// SPDX-License-Identifier: Apache-2.0
// What a session has to say at the end.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "engine/session.h"

namespace lacuna {
namespace {

PhaseReport finished(const Session::Impl::PhaseState& p, const Session::Impl::PhaseState& windowed) {
  PhaseReport r = p.report;
  const PhaseReport& w = windowed.report;
  r.windowed = {w.calls, w.kv_bytes, w.seconds[static_cast<int>(Verb::attend)]};
  r.lost = p.loss.stats();
  r.output_error = p.error_rows ? p.error_sum / static_cast<double>(p.loss.stats().rows) : 0.0;
  return r;
}

nlohmann::json as_json(const PhaseReport& r) {
  nlohmann::json seconds;
  for (int v = 0; v < kVerbs; ++v) seconds[name_of(static_cast<Verb>(v))] = r.seconds[v];
  return {{"calls", r.calls},
          {"density", r.density()},
          {"allowed_pairs", r.allowed_pairs},
          {"attended_pairs", r.attended_pairs},
          {"kv_bytes", r.kv_bytes},
          {"attention_s", seconds},
          {"output_error", r.output_error},
          {"windowed",
           {{"calls", r.windowed.calls}, {"kv_bytes", r.windowed.kv_bytes}, {"attention_s", r.windowed.seconds}}},
          {"lost_mass", {{"mean", r.lost.mean}, {"upper", r.lost.upper}, {"p95", r.lost.p95}, {"max", r.lost.max}, {"rows", r.lost.rows}}}};
}

}  // namespace

Report Session::report() const {
  const Impl& s = *impl_;
  Report r;
  r.method = s.spec;
  r.kernel = s.kernel_used ? s.kernel_used : "";
  r.machine = describe(s.have);
  r.prefill = finished(s.prefill, s.windowed_prefill);
  r.decode = finished(s.decode, s.windowed_decode);
  r.windowed_layers = static_cast<int>(std::count(s.windowed_layers.begin(), s.windowed_layers.end(), true));
  r.note = s.chooser && s.unfit.empty() ? s.chooser->summary() : s.note;
  if (r.note.empty() && !(s.have & kAvx2)) r.note = "no AVX2: the slow reference computes attention";
  return r;
}

std::string Session::report_json() const {
  const Report r = report();
  return nlohmann::json{{"method", r.method},        {"kernel", r.kernel},
                        {"machine", r.machine},      {"prefill", as_json(r.prefill)},
                        {"decode", as_json(r.decode)}, {"note", r.note},
                        {"windowed_layers", r.windowed_layers},
                        {"session_bytes", own_bytes()}}
      .dump();
}

void Session::reset_report() {
  impl_->prefill = {};
  impl_->decode = {};
  impl_->windowed_prefill = {};
  impl_->windowed_decode = {};
  impl_->note.clear();
}

}  // namespace lacuna
