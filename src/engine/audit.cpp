// SPDX-License-Identifier: Apache-2.0
// The audit: exact attention for some rows of a call beside what was done (docs/account.md).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/session.h"

namespace lacuna {
namespace {

constexpr std::size_t kRowsAtOnce = 256;  // of a full audit: what is gathered stays small

// Relative L2 distance of two outputs of one row and head; 1 at most, so that a mean of it has a bound.
double relative_error(const float* kept, const float* all, std::int32_t dv) {
  double difference = 0, size = 0;
  for (int d = 0; d < dv; ++d) {
    difference += (kept[d] - all[d]) * (kept[d] - all[d]);
    size += static_cast<double>(all[d]) * all[d];
  }
  return size > 0 ? std::min(1.0, std::sqrt(difference / size)) : 0.0;
}

const float* out_row(const op::Attend::Args& a, int h, std::int32_t i) { return a.out + h * a.out_head + i * a.out_row; }
float lse_of(const op::Attend::Args& a, int h, std::int32_t i) { return a.lse[static_cast<std::size_t>(h) * a.n_rows + i]; }

}  // namespace

// Which rows of a segment are audited: of every kAuditEvery one, each as likely as the others, whether something was left out or
// not; so the mean is over the run, whatever the sizes of its calls. A full audit adds the others, and draws alike. A trial has at
// least one row, drawn or not: what was not drawn stays out of the mean.
void Session::Impl::draw_rows(const Segment& s, bool trial) {
  audited.clear();
  const bool all = options.audit == Audit::full;
  for (std::int32_t first = 0; first < s.rows(); first += kAuditEvery) {
    const std::int32_t drawn = first + static_cast<std::int32_t>(rng.below(kAuditEvery));
    if (!all && drawn < s.rows()) audited.push_back({drawn, true, true});
    for (std::int32_t i = first; all && i < std::min(first + kAuditEvery, s.rows()); ++i) audited.push_back({i, i == drawn, true});
  }
  if (trial && audited.empty() && s.rows() > 0) audited.push_back({s.rows() - 1, false, false});
}

void Session::Impl::count_row(double lost, double error, bool drawn, bool counted) {
  if (counted) phase->loss.add(lost), phase->error.add(error);
  if (drawn && heads) contract->ledger(contract_call.phase).add(options.max_error > 0 ? error : lost);
}

void Session::Impl::end_row(bool nothing_left_out, bool drawn, bool counted) {
  const bool sure = nothing_left_out || options.audit == Audit::full;
  if (counted) phase->loss.end_draw(sure), phase->error.end_draw(sure);
  if (drawn && heads) contract->ledger(contract_call.phase).end_draw(nothing_left_out);
}

// Nothing was left out: these rows lost nothing, and count as such.
void Session::Impl::audit_lossless(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args) {
  const Timed timed(*this, Verb::account);
  for (const Segment& s : mask.visible.segments()) {
    draw_rows(s, false);
    for (const AuditedRow& a : audited) {
      if (mask.visible.visible_keys(s.row_begin + a.row) < kMinAuditedKeys) continue;
      for (int h = 0; h < args.hq; ++h) count_row(0, 0, a.drawn, a.counted);
      end_row(true, a.drawn, a.counted);
      if (int head = 0; a.drawn && draw_recall(mask.decode, args.hq, head)) count_recall(0, true);
      if (drawn_now() && a.drawn) patterns->add_row(c.layer, mask.visible, s, a.row, args, s.row_begin + a.row, *parallel);
    }
  }
}

// A call of some rows of another, its q and additive mask gathered, its out and lse in buffers of their own.
op::Attend::Args Session::Impl::gather_rows(const op::Attend::Args& args, std::span<const std::int32_t> rows) {
  op::Attend::Args a = args;
  const std::size_t n = rows.size(), dk = static_cast<std::size_t>(args.dk), dv = static_cast<std::size_t>(args.dv);
  a.n_rows = static_cast<std::int32_t>(n);
  float* q = audit_q.grow_as<float>(static_cast<std::size_t>(args.hq) * n * dk);
  for (int h = 0; h < args.hq; ++h)
    for (std::size_t i = 0; i < n; ++i)
      std::memcpy(q + (static_cast<std::size_t>(h) * n + i) * dk, args.q + h * args.q_head + rows[i] * args.q_row, sizeof(float) * dk);
  a.q = q;
  a.q_head = static_cast<std::int64_t>(n * dk);
  a.q_row = args.dk;
  if (args.bias) {
    const auto cells = static_cast<std::size_t>(args.n_cells);
    auto* bias = audit_bias.grow_as<std::uint16_t>(n * cells);
    for (std::size_t i = 0; i < n; ++i) std::memcpy(bias + i * cells, args.bias + rows[i] * args.bias_row, sizeof(std::uint16_t) * cells);
    a.bias = bias;
    a.bias_row = args.n_cells;
  }
  a.out = audit_out.grow_as<float>(static_cast<std::size_t>(args.hq) * n * dv);
  a.out_head = static_cast<std::int64_t>(n * dv);
  a.out_row = args.dv;
  a.lse = audit_lse.grow_as<float>(static_cast<std::size_t>(args.hq) * n);
  return a;
}

// Exact attention for the drawn rows of a segment beside what `args` did for all (its out and lse are done).
Status Session::Impl::audit_segment(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args,
                                    Outcome& outcome) {
  const auto counts = [&](const AuditedRow& a) { return mask.visible.visible_keys(s.row_begin + a.row) >= kMinAuditedKeys; };
  std::erase_if(audited, [&](const AuditedRow& a) { return !counts(a); });
  std::vector<std::int32_t> call_rows;
  for (std::size_t begin = 0; begin < audited.size(); begin += kRowsAtOnce) {
    const auto now = std::span(audited).subspan(begin, std::min(kRowsAtOnce, audited.size() - begin));
    op::Attend::Args exact;
    if (!outcome.all_kept) {
      rows_to_audit.clear();
      call_rows.clear();
      for (const AuditedRow& a : now) {
        rows_to_audit.push_back(a.row);
        call_rows.push_back(s.row_begin + a.row);
      }
      exact = gather_rows(args, rows_to_audit);
      lower_dense_rows(mask.visible, call_rows, audit_runs);
      exact.runs = audit_runs.view();
      exact.pv_skip = nullptr;
      LACUNA_CHECK(execute(c, exact));
    }
    for (std::size_t i = 0; i < now.size(); ++i) {
      const auto [row, drawn, counted] = now[i];
      for (int h = 0; h < args.hq; ++h) {
        double lost = 0, error = 0;
        const bool dense = outcome.all_kept || (heads && heads->dense[static_cast<std::size_t>(h)]);
        if (!dense) {
          const auto at = static_cast<std::int32_t>(i);
          lost = lost_mass(lse_of(args, h, row), lse_of(exact, h, at));
          error = relative_error(out_row(args, h, row), out_row(exact, h, at), args.dv);
          if (heads && drawn) contract->saw(contract_call, h, options.max_error > 0 ? error : lost);
        }
        outcome.lost += lost;
        ++outcome.audited;
        count_row(lost, error, drawn, counted);
      }
      end_row(outcome.all_kept, drawn, counted);
      if (int head = 0; drawn && draw_recall(mask.decode, args.hq, head)) {
        const bool sees_all = outcome.all_kept || (heads && heads->dense[static_cast<std::size_t>(head)]);
        count_recall(sees_all ? 0.0 : missed_top_keys(mask, s, row, head, args), outcome.all_kept);
      }
      if (drawn_now() && drawn) patterns->add_row(c.layer, mask.visible, s, row, args, row, *parallel);
    }
  }
  return {};
}

// What the method's own plan would have lost in the heads that ran dense: two of the segment's rows by the plan, beside `args`, which
// is exact there.
Status Session::Impl::peek(const AttendCall& c, const MaskEntry& mask, const Segment& s, const Plan& plan, const op::Attend::Args& args) {
  rows_to_audit.clear();
  for (const std::int32_t half : {0, s.rows() / 2}) {
    const std::int32_t end = half == 0 && s.rows() > 1 ? s.rows() / 2 : s.rows();
    const auto row = half + static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(end - half)));
    if ((rows_to_audit.empty() || rows_to_audit.back() < row) && mask.visible.visible_keys(s.row_begin + row) >= kMinAuditedKeys)
      rows_to_audit.push_back(row);
  }
  if (rows_to_audit.empty()) return {};
  Plan dense_heads_only = plan;
  if (dense_heads_only.routes.empty()) dense_heads_only.routes.assign(static_cast<std::size_t>(args.hq), Route{0});
  for (int h = 0; h < args.hq; ++h)
    if (!heads->dense[static_cast<std::size_t>(h)]) dense_heads_only.routes[static_cast<std::size_t>(h)] = kRouteOff;
  double pairs = 0;
  std::vector<double> kept_pairs;  // of each list
  for (const std::int32_t& row : rows_to_audit) {  // one by one: kernels for one row take whatever lists, and no unit of many rows
    op::Attend::Args kept = gather_rows(args, {&row, 1});
    lower_plan(dense_heads_only, mask.visible, s,
               {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(plan, kBlockQ), .gather = !args.bias, .only = {&row, 1}},
               audit_runs);
    kept.runs = audit_runs.view();
    kept.pv_skip = pv_skip_of(plan);
    LACUNA_CHECK(execute(c, kept));
    pairs += static_cast<double>(mask.visible.visible_keys(s.row_begin + row));
    kept_pairs.resize(audit_runs.list_pairs.size());
    for (std::size_t l = 0; l < kept_pairs.size(); ++l) kept_pairs[l] += audit_runs.list_pairs[l];
    for (int h = 0; h < args.hq; ++h)
      if (heads->dense[static_cast<std::size_t>(h)])
        contract->saw(contract_call, h,
                      options.max_error > 0 ? relative_error(out_row(kept, h, 0), out_row(args, h, row), args.dv)
                                            : lost_mass(lse_of(kept, h, 0), lse_of(args, h, row)));
  }
  audit_runs.list_pairs = std::move(kept_pairs);
  tell_contract(audit_runs, args.hq, pairs, true);
  return {};
}

}  // namespace lacuna
