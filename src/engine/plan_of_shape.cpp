// SPDX-License-Identifier: Apache-2.0
// Methods of the family `fixed` decide by layer and position alone: no tensor is needed to ask them.
#include <fmt/format.h>

#include "engine/plan_words.h"
#include "engine/registry.h"
#include "lacuna/block_lists.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

// What a method that looks at nothing may ask for: nothing.
class NoContext final : public Context {
 public:
  void* scratch(int, std::size_t) override { return nullptr; }
  ParallelFor& threads() override { return *pool_; }
  void add_time(Verb, double) override {}

 private:
  void run_op(const char*, const void*) override {}
  std::shared_ptr<ParallelFor> pool_ = make_thread_pool(1);
};

Status check_options(const Options& o) {
  const char* what = o.audit != Audit::off                   ? "an audit"
                     : o.max_loss > 0 || o.max_error > 0      ? "a contract"
                     : o.certify > 0                          ? "a certificate"
                     : o.calibrate                            ? "a calibration"
                                                              : nullptr;
  if (!what) return {};
  return unsupported(fmt::format("{} looks at keys, which a plan of a shape does not: leave it out, or plan with a session", what));
}

}  // namespace

Result<std::vector<std::int32_t>> plan_of_shape(std::string_view text, const CallShape& s) {
  auto options = parse_options(text);
  if (!options.ok()) return options.error();
  LACUNA_CHECK(check_options(options.value()));
  auto made = make_method(options.value().method);
  if (!made.ok()) return made.error();
  const Method& method = *made.value();
  if (method.card().family != "fixed")
    return unsupported(fmt::format("{} looks at keys to choose what to keep: its plan is no closed form", method.card().slug));
  if (s.layer < 0 || s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads || s.rows < 0 || s.keys < 0 || s.head_dim < 1)
    return bad_argument(fmt::format("plan: layer {}, {} query heads over {} KV heads, {} rows, {} keys, head_dim {}: need 0 or more, "
                                    "a multiple, and head_dim 1 or more", s.layer, s.heads, s.kv_heads, s.rows, s.keys, s.head_dim));
  Plan plan;
  // As a session has it: rows that see keys after their own, or begin with some that see nothing, get everything.
  if (s.rows > 0 && s.keys >= s.rows && (s.causal || s.rows == 1)) {
    AttentionView x;
    x.layer = s.layer;
    x.phase = s.rows == 1 ? Phase::decode : Phase::prefill;
    x.grid = {s.heads, s.rows, s.keys, s.keys - s.rows};
    x.hkv = s.kv_heads;
    x.dk = s.head_dim;
    x.cells.n = s.keys;
    NoContext context;
    auto kept = method.plan(x, context);
    if (!kept.ok()) return kept.error();
    plan = std::move(kept.value());
  }
  return to_words({&plan, 1});
}

}  // namespace lacuna
