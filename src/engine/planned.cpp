// SPDX-License-Identifier: Apache-2.0
// Plans apart from the call that runs them: made ahead, handed in, or made again for gradients.
#include <bit>

#include <fmt/format.h>

#include "engine/plan_words.h"
#include "engine/session.h"

namespace lacuna {

// A method whose choice follows from the call and nothing else can be asked twice.
Status Session::Impl::decides_alone() const {
  const char* why = chooser      ? "it chooses a method from what earlier calls took and lost"
                    : contract   ? "a contract chooses the heads from what earlier calls lost"
                    : calibrator ? "a calibration runs dense"
                                 : nullptr;
  if (!why) return {};
  return unsupported(fmt::format("{}: {}, so its plan cannot be made apart from the call; name one method, without "
                                 "max_loss, max_error and calibrate", spec, why));
}

// Fills `plans` with what the method keeps in each segment.
Status Session::Impl::make_plans(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args) {
  LACUNA_CHECK(decides_alone());
  plans.clear();
  const bool apart = !options.windowed && windowed(c, mask);
  const bool dense = apart || !unfit.empty() || method->card().slug == "dense";
  for (const Segment& s : mask.visible.segments()) {
    Result<Plan> p = dense ? dense_plan("") : plan(*method, c, mask, s, args);
    if (!p.ok()) return p.error();
    LACUNA_CHECK(check_plan(p.value(), {args.hq, s.rows(), s.n_keys, 0}, args.hkv, args.n_cells));
    plans.push_back(std::move(p.value()));
  }
  return {};
}

// The call as one segment: keys are cells.
Segment Session::Impl::whole_call(const Visibility& visible) {
  Segment s;
  s.row_end = visible.n_rows();
  s.n_keys = visible.n_cells();
  for (std::int32_t i = 0; i < s.row_end; ++i) {
    const std::uint32_t* words = visible.words(i);
    std::int64_t tile = visible.n_tiles() - 1;
    while (tile >= 0 && !words[tile]) --tile;
    s.key_of_row.push_back(tile < 0 ? -1 : static_cast<std::int32_t>(tile * kTileKeys + std::bit_width(words[tile]) - 1));
  }
  return s;
}

// Fills `plans` with those of the call, and gives the segments they speak of.
Result<const std::vector<Segment>*> Session::Impl::take_plans(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args) {
  if (c.plan_words < 0) return bad_argument(fmt::format("plan: {} words, need 0 or more", c.plan_words));
  auto read = plans_from_words({c.plan, static_cast<std::size_t>(c.plan_words)});
  if (!read.ok()) return read.error();
  plans = std::move(read.value().plans);
  if (read.value().whole) given_segments.assign(1, whole_call(mask.visible));
  const auto& segments = read.value().whole ? given_segments : mask.visible.segments();
  if (plans.size() != segments.size())
    return bad_argument(fmt::format("plan: of {} sequences, the call has {}: it was made for another mask", plans.size(), segments.size()));
  for (std::size_t i = 0; i < plans.size(); ++i)
    LACUNA_CHECK(check_plan(plans[i], {args.hq, segments[i].rows(), segments[i].n_keys, 0}, args.hkv, args.n_cells));
  return &segments;
}

Result<std::vector<std::int32_t>> Session::Impl::plan_words(const AttendCall& c) {
  LACUNA_CHECK(check_inputs(c));
  scratch_phase = {};
  phase = &scratch_phase;
  side = nullptr;
  if (c.q.tokens() == 0) return to_words({});
  check_profiles(c);
  const MaskEntry& mask = mask_entry(c);
  LACUNA_CHECK(make_plans(c, mask, base_args(c, mask)));
  return to_words(plans);
}

// FNV-1a over the words.
std::uint64_t number_of(std::span<const Plan> plans) {
  std::uint64_t sum = 0xcbf29ce484222325u;
  for (const std::int32_t w : to_words(plans)) sum = (sum ^ static_cast<std::uint32_t>(w)) * 0x100000001b3u;
  return sum;
}

}  // namespace lacuna
