// SPDX-License-Identifier: Apache-2.0
// What an instance says in words: a line now and then in the host's log, and the same at the end.
#include <chrono>
#include <cstdio>
#include <numeric>

#include "host/ggml/api.h"
#include "host/ggml/backend.h"

namespace lacuna::ggml {
namespace {

double seconds_of(const PhaseReport& p) { return std::accumulate(std::begin(p.seconds), std::end(p.seconds), p.contract_seconds); }

std::string lost_words(const LossStats& l) {
  char text[64] = "not audited";
  if (l.rows > 0) std::snprintf(text, sizeof text, "%.4f (at most %.4f)", l.mean, l.upper);
  return text;
}

std::string contract_words(const ContractReport& c) {
  const auto state = [](const ContractReport::Phase& p) {
    return p.state == ContractReport::State::held ? "held" : p.state == ContractReport::State::open ? "not shown" : "broken";
  };
  char text[128];
  std::snprintf(text, sizeof text, ", contract of %.4f %s + %s, %d of %d heads dense", c.limit, state(c.prefill), state(c.decode),
                c.prefill.dense_heads, c.prefill.heads);
  return text;
}

std::string certificate_words(const CertificateReport& c) {
  char text[128];
  std::snprintf(text, sizeof text, ", proved at most %.4f lost in the mean of decode and %.4f in any row", c.mean, c.max);
  return text;
}

}  // namespace

// The first figure of a pair is of prompts, the second of tokens written.
std::string Instance::summary() const {
  const Report r = session_->report();
  const double reading = seconds_of(r.prefill), writing = seconds_of(r.decode) + r.certificate.seconds;
  const double attention = reading + writing, passes = r.prefill.pass_seconds + r.decode.pass_seconds;
  const double audit = r.prefill.seconds[4] + r.decode.seconds[4];
  char figures[256], shares[96] = "";
  std::snprintf(figures, sizeof figures, ": density prefill %.3f decode %.3f, mean lost mass %s + %s, attention %.2f s + %.2f s",
                r.prefill.density(), r.decode.density(), lost_words(r.prefill.lost).c_str(), lost_words(r.decode.lost).c_str(),
                reading, writing);
  if (passes > 0)
    std::snprintf(shares, sizeof shares, " (%.1f %% of the passes, audit %.1f %%)", 100 * attention / passes, 100 * audit / passes);
  return "lacuna: " + r.method + figures + shares + (r.contract.limit > 0 ? contract_words(r.contract) : "") +
         (r.certificate.rows > 0 ? certificate_words(r.certificate) : "");
}

// Where a host is at work. A host that rests logs nothing.
void Instance::log_now_and_then() {
  if (config_.log_seconds == 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (last_line_ == decltype(last_line_){}) last_line_ = now;
  if (now - last_line_ < std::chrono::seconds(config_.log_seconds)) return;
  last_line_ = now;
  log_line(summary());
  if (on_line_) on_line_(*this);
}

}  // namespace lacuna::ggml
