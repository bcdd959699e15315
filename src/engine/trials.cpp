// SPDX-License-Identifier: Apache-2.0
// Trials: what methods would keep and lose in a few rows of a call that runs dense (Calibrator::trials). Each plans
// the whole call, as it would in earnest; only the rows drawn are computed.
#include <algorithm>

#include "engine/registry.h"
#include "engine/session.h"

namespace lacuna {
namespace {

constexpr std::int32_t kTrialRows = 8;  // of a call

}  // namespace

Status Session::Impl::open_trials() {
  tried.clear();
  for (const std::string& spec : calibrator->trials()) {
    auto made = make_method(spec);
    if (!made.ok()) return made.error();
    tried.push_back(std::move(made.value()));
  }
  return {};
}

Status Session::Impl::try_methods(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& whole) {
  if (tried.empty()) return {};
  const op::Attend::Args args = rows_of(whole, s.row_begin, s.row_end);
  // One of each stretch of the rows. Seed, layer and place alone decide which: an interrupted run that goes on draws alike.
  Rng draw(options.seed ^ (static_cast<std::uint64_t>(s.key_of_row[0]) << 16) ^ static_cast<std::uint64_t>(c.layer));
  std::vector<std::int32_t> rows, call_rows;
  double pairs = 0;
  const std::int32_t stretches = std::min(kTrialRows, s.rows());
  for (std::int32_t i = 0; i < stretches; ++i) {
    const std::int32_t begin = s.rows() * i / stretches, end = s.rows() * (i + 1) / stretches;
    const auto row = begin + static_cast<std::int32_t>(draw.below(static_cast<std::uint64_t>(end - begin)));
    const std::int64_t visible = mask.visible.visible_keys(s.row_begin + row);
    if (visible < kMinAuditedKeys) continue;
    rows.push_back(row);
    call_rows.push_back(s.row_begin + row);
    pairs += static_cast<double>(visible);
  }
  if (rows.empty()) return {};

  op::Attend::Args a = gather_rows(args, rows);
  lower_dense_rows(mask.visible, call_rows, audit_runs);
  a.runs = audit_runs.view();
  a.pv_skip = nullptr;
  LACUNA_CHECK(execute(c, a));
  const auto heads_of_call = static_cast<std::size_t>(args.hq);
  const std::vector<float> exact(a.lse, a.lse + heads_of_call * rows.size());

  std::vector<double> kept(heads_of_call), lost(heads_of_call);
  for (std::size_t m = 0; m < tried.size(); ++m) {
    auto p = plan(*tried[m], c, mask, s, args);
    if (!p.ok()) return p.error();
    LACUNA_CHECK(check_plan(p.value(), {args.hq, s.rows(), s.n_keys, 0}, args.hkv, args.n_cells));
    std::fill(kept.begin(), kept.end(), pairs);
    std::fill(lost.begin(), lost.end(), 0.0);
    if (!is_dense(p.value())) {
      lower_plan(p.value(), mask.visible, s,
                 {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(p.value(), kBlockQ), .gather = !args.bias, .only = rows},
                 audit_runs);
      a.runs = audit_runs.view();
      a.pv_skip = pv_skip_of(p.value());
      LACUNA_CHECK(execute(c, a));
      for (std::size_t h = 0; h < heads_of_call; ++h) {
        kept[h] = audit_runs.list_pairs[audit_runs.heads == 1 ? 0 : h / static_cast<std::size_t>(audit_runs.heads_per_list)];
        for (std::size_t i = 0; i < rows.size(); ++i) lost[h] += lost_mass(a.lse[h * rows.size() + i], exact[h * rows.size() + i]);
      }
    }
    calibrator->tried({c.layer, s.n_keys, m, static_cast<std::int64_t>(rows.size()), pairs, kept, lost});
  }
  return {};
}

}  // namespace lacuna
