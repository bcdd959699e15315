// SPDX-License-Identifier: Apache-2.0
// lacuna check: every kernel that takes a case against the reference in double precision, by
// FlashAttention's rule: the error may be twice that of the plain formula in the same number types.
// Large problems are checked in rows chosen by the seed; the line says how many.
#include <algorithm>
#include <cmath>
#include <compare>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/half.h"
#include "base/rng.h"
#include "cli/case/grad_problem.h"
#include "cli/case/options.h"
#include "cli/case/plain.h"
#include "cli/case/plain_grad.h"
#include "cli/case/problem.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/packed_tensor.h"
#include "kv/element.h"
#include "op/attend_grad_ref.h"
#include "op/attend_ref.h"
#include "op/strided_scores_ref.h"

namespace lacuna::cli {
namespace {

struct Finding {
  std::string kernel, reason;  // reason: why the kernel did not take the case
  std::int64_t rows = 0;       // (head, row) pairs compared
  double error = 0, allowed = 0, lse_error = 0, lse_allowed = 0;
  bool finite = true;          // NaN or infinity only where the reference has it
  bool ok() const { return finite && error <= allowed && lse_error <= lse_allowed; }
};

// What is lost to rounding even in a perfect sum, for results near zero (as in test/conformance).
double tiny(PackFormat f) { return f == PackFormat::pair16_bf16 ? 1e-3 : 4e-6; }

constexpr double kMostProducts = 3e8;  // of the reference, per case and kernel: a second or two

struct Place {
  int head, row;
  auto operator<=>(const Place&) const = default;
};

std::vector<Place> places(std::int64_t heads, std::int64_t rows, double products_each, std::uint64_t seed) {
  const double all = static_cast<double>(heads) * static_cast<double>(rows);
  const auto most = static_cast<std::int64_t>(std::max(16.0, kMostProducts / std::max(products_each, 1.0)));
  std::vector<Place> out;
  if (all <= static_cast<double>(most)) {
    for (int h = 0; h < heads; ++h)
      for (int i = 0; i < rows; ++i) out.push_back({h, i});
    return out;
  }
  Rng rng(seed);
  out = {{0, 0}, {static_cast<int>(heads - 1), static_cast<int>(rows - 1)}};
  while (static_cast<std::int64_t>(out.size()) < most)
    out.push_back({static_cast<int>(rng.below(static_cast<std::uint64_t>(heads))),
                   static_cast<int>(rng.below(static_cast<std::uint64_t>(rows)))});
  // Each once: rows are computed side by side, and two of one would write to one place.
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void compare(float got, float want, double& worst, bool& finite) {
  if (got == want) return;
  if (!std::isfinite(got) || !std::isfinite(want)) finite = false;
  else worst = std::max(worst, std::fabs(static_cast<double>(got) - want));
}

std::vector<Finding> check_attend(const Case& c, ParallelFor& threads) {
  const Features have = features_of(c);
  std::vector<Finding> findings;
  for (const auto* k : kernel::attend_list) {
    if (!c.kernel.empty() ? c.kernel != k->name : k->only_forced != nullptr) continue;
    Finding f;
    f.kernel = k->name;
    f.reason = missing_features(have, k->needs);
    for (int batch = 0; batch < c.b && f.reason.empty(); ++batch) {
      AttendProblem problem(c, batch);
      // Without packed copies where the kernel would be called without: that way it is judged.
      op::Attend::Args a = problem.args(have, PackFormat::none, threads);
      if (!taken_in_place(a, have, threads.workers(), k)) a = problem.args(have, format_for(*k, both_in(c.kv, c.v_type())), threads);
      if (const char* why = k->why_not ? k->why_not(a, threads.workers()) : nullptr) {
        f.reason = why;
        break;
      }
      Workspace space;
      run_kernel(*k, a, threads, space);
      std::vector<float> want(problem.out().size()), plain(want.size()), want_lse(problem.lse().size()), plain_lse(want_lse.size());
      op::Attend::Args exact = a, rough = a;
      exact.out = want.data();
      exact.lse = want_lse.data();
      rough.out = plain.data();
      rough.lse = plain_lse.data();
      const double keys = problem.attended_pairs() / static_cast<double>(c.hq * c.nq);
      const auto where = places(c.hq, c.nq, 2 * keys * (a.dk + a.dv), c.seed + 11);
      threads.each(static_cast<int>(where.size()), [&](int i, int) {
        op::attend_row_ref(exact, where[static_cast<std::size_t>(i)].head, where[static_cast<std::size_t>(i)].row);
        attend_row_plain(rough, k->pack, where[static_cast<std::size_t>(i)].head, where[static_cast<std::size_t>(i)].row);
      });
      double rough_error = 0, rough_lse = 0;
      bool ignored = true;
      for (const Place& p : where) {
        for (int d = 0; d < a.dv; ++d) {
          const auto at = static_cast<std::size_t>(p.head * a.out_head + p.row * a.out_row + d);
          compare(problem.out()[at], want[at], f.error, f.finite);
          compare(plain[at], want[at], rough_error, ignored);
        }
        const auto at = static_cast<std::size_t>(p.head) * static_cast<std::size_t>(c.nq) + static_cast<std::size_t>(p.row);
        compare(problem.lse()[at], want_lse[at], f.lse_error, f.finite);
        compare(plain_lse[at], want_lse[at], rough_lse, ignored);
      }
      // Every element must have been written, compared or not.
      for (const float x : problem.out()) f.finite = f.finite && !std::isnan(x);
      f.rows += static_cast<std::int64_t>(where.size());
      f.allowed = std::max(f.allowed, 2 * rough_error + tiny(k->pack));
      f.lse_allowed = std::max(f.lse_allowed, 2 * rough_lse + tiny(k->pack));
    }
    findings.push_back(f);
  }
  return findings;
}

// attend_grad: all of it, since a gradient by a key is a sum over all rows. Of dq, dk and dv the one nearest to its
// bound, or beyond it, is reported. Forward is done in f32, so that nothing but the backward is judged.
std::vector<Finding> check_grad(const Case& c, ParallelFor& threads) {
  const Features have = features_of(c);
  std::vector<Finding> findings;
  for (const auto* k : kernel::attend_grad_list) {
    if (!c.kernel.empty() ? c.kernel != k->name : k->only_forced != nullptr) continue;
    Finding f;
    f.kernel = k->name;
    f.reason = missing_features(have, k->needs);
    f.allowed = 1e-30;
    for (int batch = 0; batch < c.b && f.reason.empty(); ++batch) {
      GradProblem problem(c, batch);
      const auto call = problem.args(have, Precision::high, threads);
      if (!call.ok()) {
        f.reason = call.error().what;
        break;
      }
      const op::AttendGrad::Args& a = call.value();
      if (const char* why = k->why_not ? k->why_not(a, threads.workers()) : nullptr) {
        f.reason = why;
        break;
      }
      Workspace space;
      run_kernel(*k, a, threads, space);
      const std::vector<float>* got[] = {&problem.d_q, &problem.d_k, &problem.d_v};
      std::vector<float> want[3], plain[3];
      for (int i = 0; i < 3; ++i) want[i] = plain[i] = *got[i];
      op::AttendGrad::Args exact = a, rough = a;
      exact.d_q = want[0].data();
      exact.d_k = want[1].data();
      exact.d_v = want[2].data();
      rough.d_q = plain[0].data();
      rough.d_k = plain[1].data();
      rough.d_v = plain[2].data();
      const bool bf16 = (k->needs & kAvx512Bf16) != 0;
      threads.each(static_cast<int>(c.hkv), [&](int head, int) {
        op::attend_grad_ref(exact, head);
        attend_grad_plain(rough, bf16, head);
      });
      for (int t = 0; t < 3; ++t) {
        double error = 0, rough_error = 0, size = 1;
        bool ignored = true;
        for (std::size_t i = 0; i < want[t].size(); ++i) {
          compare((*got[t])[i], want[t][i], error, f.finite);
          compare(plain[t][i], want[t][i], rough_error, ignored);
          size = std::max(size, std::fabs(static_cast<double>(want[t][i])));
        }
        const double bound = (c.softcap > 0 ? 3 : 2) * rough_error + (bf16 ? 1e-3 : 4e-6) * size;
        if (error / bound < f.error / f.allowed) continue;
        f.error = error;
        f.allowed = bound;
      }
      f.rows += c.hq * c.nq;
    }
    findings.push_back(f);
  }
  return findings;
}

// The plain score of one square: f32, operands rounded as the packed form rounds them.
float plain_score(const op::StridedScores::Args& a, const std::vector<float>& k, int h, std::int64_t m, std::int64_t n, bool bf16) {
  const auto rounded = [&](float x) { return bf16 ? bf16_to_float(float_to_bf16(x)) : x; };
  float sum = 0;
  for (int s = 0; s < a.stride; ++s) {
    const std::int64_t row = m * a.stride + a.stride - 1 - s, key = n * a.stride + s;
    if (row >= a.n_rows || key >= a.n_keys) continue;
    for (int d = 0; d < a.dk; ++d)
      sum += rounded(a.q[h * a.q_head + row * a.q_row + d]) *
             rounded(k[static_cast<std::size_t>((key * a.hkv + h / (a.hq / a.hkv)) * a.dk + d)]);
  }
  return sum;
}

std::vector<Finding> check_strided(const Case& c, ParallelFor& threads) {
  const Features have = features_of(c);
  AttendProblem problem(c, 0);
  std::vector<float> keys(static_cast<std::size_t>(c.nkv * c.hkv * c.d));
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = element(problem.k(), c.kv, static_cast<std::int64_t>(i));
  std::vector<Finding> findings;
  for (const auto* k : kernel::strided_scores_list) {
    if (!c.kernel.empty() ? c.kernel != k->name : k->only_forced != nullptr) continue;
    Finding f;
    f.kernel = k->name;
    f.reason = missing_features(have, k->needs);
    const PackFormat format = k->pack != PackFormat::none ? format_for(*k, c.kv) : choose_format(have, c.kv, c.precision);
    if (f.reason.empty() && format == PackFormat::none) f.reason = "reads packed keys, which need AVX2";
    if (f.reason.empty()) {
      op::StridedScores::Args a = strided_args(c, problem.args(have, format, threads));
      a.score_row = a.n_cols();
      std::vector<float> got(static_cast<std::size_t>(a.hq * a.m_rows() * a.score_row), NAN);
      a.score = got.data();
      if (const char* why = k->why_not ? k->why_not(a, threads.workers()) : nullptr) {
        f.reason = why;
      } else {
        Workspace space;
        run_kernel(*k, a, threads, space);
        double rough_error = 0;
        bool ignored = true;
        const double products = static_cast<double>(a.n_cols()) * a.stride * a.dk;
        for (const Place& p : places(a.hq, a.m_rows(), 2 * products, c.seed + 11)) {
          for (std::int64_t n = 0; n < a.causal_end(p.row); ++n) {
            double want = 0;  // the specification, over the raw keys
            for (int s = 0; s < a.stride; ++s) {
              const std::int64_t row = static_cast<std::int64_t>(p.row) * a.stride + a.stride - 1 - s, key = n * a.stride + s;
              if (row >= a.n_rows || key >= a.n_keys) continue;
              for (int d = 0; d < a.dk; ++d)
                want += static_cast<double>(a.q[p.head * a.q_head + row * a.q_row + d]) *
                        keys[static_cast<std::size_t>((key * a.hkv + p.head / (a.hq / a.hkv)) * a.dk + d)];
            }
            const auto at = static_cast<std::size_t>((p.head * a.m_rows() + p.row) * a.score_row + n);
            compare(got[at], static_cast<float>(want), f.error, f.finite);
            compare(plain_score(a, keys, p.head, p.row, n, format == PackFormat::pair16_bf16), static_cast<float>(want),
                    rough_error, ignored);
          }
          ++f.rows;
        }
        // A score is a sum of stride * d products of size one: the tiny term grows with its root.
        const double size = std::sqrt(static_cast<double>(a.stride) * a.dk);
        f.allowed = 2 * rough_error + tiny(format) * size;
      }
    }
    findings.push_back(f);
  }
  return findings;
}

}  // namespace

int verb_check(int argc, char** argv) {
  CLI::App app("Compares every kernel that takes a case with the reference.", "check");
  CaseOptions options;
  options.add_to(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (const std::string why = options.json.check(); !why.empty()) return bad_input(why);
  auto cases = options.read("smoke_");
  if (!cases.ok()) return bad_input(cases.error().what);

  for (const Case& c : cases.value())
    if (c.op != "strided_scores" && !c.attends())
      return bad_input(fmt::format("check compares kernels of attend, attend_grad and strided_scores; this case is for bench: {}", c.line()));

  const bool speak = !options.json.on_stdout();
  nlohmann::ordered_json document = {{"machine", describe(detect_features())}, {"cases", nlohmann::ordered_json::array()}};
  std::int64_t checked = 0, failed = 0, done = 0;
  Progress progress("check", static_cast<long long>(cases.value().size()), "cases");
  for (const Case& c : cases.value()) {
    progress.update(done++);
    const auto threads = make_thread_pool(c.threads);
    std::vector<Finding> findings;
    try {
      findings = c.op == "attend"        ? check_attend(c, *threads)
                 : c.op == "attend_grad" ? check_grad(c, *threads)
                                         : check_strided(c, *threads);
    } catch (const std::bad_alloc&) {
      return bad_input(fmt::format("out of memory: {}", c.line()));
    }
    progress.clear();
    nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
    std::string good, worst;
    std::int64_t taken = 0, bad = 0;
    for (const Finding& f : findings) {
      nlohmann::ordered_json j = {{"kernel", f.kernel}};
      if (!f.reason.empty()) {
        j["ok"] = nullptr;
        j["refused"] = f.reason;
      } else {
        ++taken;
        bad += !f.ok();
        j["ok"] = f.ok();
        j["rows"] = f.rows;
        j["error"] = f.error;
        j["allowed"] = f.allowed;
        if (c.op == "attend") j.update({{"lse_error", f.lse_error}, {"lse_allowed", f.lse_allowed}});
        good += fmt::format("{}{} {:.1e}/{:.1e}", good.empty() ? "" : ", ", f.kernel, f.error, f.allowed);
        if (!f.ok())
          worst += fmt::format("  {}: {}\n", f.kernel,
                               !f.finite ? "NaN or infinity, or a result not written"
                                         : fmt::format("error {:.2e}, allowed {:.2e}; log-sum error {:.2e}, allowed {:.2e}",
                                                       f.error, f.allowed, f.lse_error, f.lse_allowed));
      }
      kernels.push_back(std::move(j));
    }
    if (taken == 0 && !c.kernel.empty() && !findings.empty())
      return bad_input(fmt::format("kernel {} does not take this case: {}: {}", c.kernel, findings[0].reason, c.line()));
    checked += taken;
    failed += bad;
    document["cases"].push_back({{"case", c.line()}, {"ok", bad == 0 && taken > 0}, {"kernels", kernels}});
    if (speak) {
      fmt::print("{} {}\n", bad ? bold("FAILED") : taken ? "ok    " : "none  ", c.line());
      if (bad) fmt::print("{}", worst);
      else fmt::print("{}", dim(paragraph(taken ? good : "no kernel of this machine takes it", std::string(7, ' '))));
      std::fflush(stdout);
    }
  }
  document["checked"] = checked;
  document["failed"] = failed;
  if (options.json.wanted())
    if (const std::string why = options.json.write(document); !why.empty()) return bad_input(why);
  if (speak)
    fmt::print("{} cases, {} checks of a kernel, {} failed (error / allowed)\n", cases.value().size(), checked, failed);
  return failed || checked == 0 ? kFailedCheck : kOk;
}

}  // namespace lacuna::cli
