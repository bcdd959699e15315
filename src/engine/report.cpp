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
  r.error = p.error.stats();
  const LossStats missed = p.missed.stats();
  if (missed.rows > 0) r.recall = {1 - missed.mean, 1 - missed.upper, missed.rows};
  return r;
}

nlohmann::json as_json(const LossStats& s) {
  return {{"mean", s.mean}, {"upper", s.upper}, {"p95", s.p95}, {"max", s.max}, {"rows", s.rows}};
}

nlohmann::json as_json(const ContractReport::Phase& r) {
  using State = ContractReport::State;
  return {{"state", r.state == State::held ? "held" : r.state == State::open ? "open" : "broken"},
          {"mean", r.mean},
          {"upper", r.upper},
          {"heads", r.heads},
          {"dense_heads", r.dense_heads},
          {"widened_layers", r.widened_layers}};
}

nlohmann::json as_json(const Session::Impl& s, const ContractReport& r) {
  if (r.limit == 0) return nullptr;
  nlohmann::json dense = nlohmann::json::array();
  for (const Contract::DenseHead& h : s.contract->dense_heads())
    dense.push_back({{"phase", h.phase == Phase::decode ? "decode" : "prefill"}, {"layer", h.layer}, {"head", h.head},
                     {"calls", h.calls}, {"dense_calls", h.dense_calls}, {"density", h.density},
                     {"loss", h.loss < 0 ? nlohmann::json() : nlohmann::json(h.loss)}, {"why", h.why}});
  return {{"limit", r.limit},
          {"of", r.of_error ? "output_error" : "lost_mass"},
          {"prefill", as_json(r.prefill)},
          {"decode", as_json(r.decode)},
          {"were_dense", dense}};
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
          {"contract_s", r.contract_seconds},
          {"pass_s", r.pass_seconds},
          {"audit_share", r.audit_share()},
          {"output_error", as_json(r.error)},
          {"top_recall", {{"mean", r.recall.mean}, {"lower", r.recall.lower}, {"rows", r.recall.rows}}},
          {"windowed",
           {{"calls", r.windowed.calls}, {"kv_bytes", r.windowed.kv_bytes}, {"attention_s", r.windowed.seconds}}},
          {"lost_mass", as_json(r.lost)}};
}

nlohmann::json as_json(const CertificateReport& r) {
  if (r.limit == 0) return nullptr;
  return {{"limit", r.limit}, {"rows", r.rows}, {"mean", r.mean}, {"max", r.max}, {"within", r.within}, {"kept_for_it", r.kept_for_it}, {"seconds", r.seconds}};
}

ContractReport contract_of(const Session::Impl& s) {
  ContractReport r;
  if (!s.contract) return r;
  r.limit = s.contract->limit();
  r.of_error = s.options.max_error > 0;
  r.prefill = s.contract->report(Phase::prefill);
  r.decode = s.contract->report(Phase::decode);
  return r;
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
  r.contract = contract_of(s);
  if (s.certificate) r.certificate = s.certificate->report();
  r.windowed_layers = static_cast<int>(std::count(s.windowed_layers.begin(), s.windowed_layers.end(), true));
  r.note = s.chooser && s.unfit.empty() ? s.chooser->summary() : s.note;
  if (r.note.empty() && !(s.have & kAvx2)) r.note = "no AVX2: the slow reference computes attention";
  return r;
}

std::string Session::report_json() const {
  const Report r = report();
  nlohmann::json j{{"method", r.method},
                   {"kernel", r.kernel},
                   {"machine", r.machine},
                   {"prefill", as_json(r.prefill)},
                   {"decode", as_json(r.decode)},
                   {"note", r.note},
                   {"contract", as_json(*impl_, r.contract)},
                   {"certificate", as_json(r.certificate)},
                   {"windowed_layers", r.windowed_layers},
                   {"session_bytes", own_bytes()}};
  if (impl_->patterns) j["patterns"] = impl_->patterns->as_json();
  return j.dump();
}

void Session::reset_report() {
  impl_->prefill = {};
  impl_->decode = {};
  impl_->windowed_prefill = {};
  impl_->windowed_decode = {};
  impl_->note.clear();
  if (impl_->patterns) impl_->patterns = std::make_unique<Patterns>();
  if (impl_->contract) impl_->renew_contract();
  if (impl_->certificate) *impl_->certificate = CertificateCount(impl_->options.certify);
}

}  // namespace lacuna
