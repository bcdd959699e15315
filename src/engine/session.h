// SPDX-License-Identifier: Apache-2.0
// The inside of a Session.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "account/contract.h"
#include "account/loss.h"
#include "base/buffer.h"
#include "base/rng.h"
#include "engine/certified_row.h"
#include "engine/chooser.h"
#include "engine/lower.h"
#include "engine/packed_tensor.h"
#include "engine/pass_clock.h"
#include "engine/patterns.h"
#include "engine/pick.h"
#include "engine/side.h"
#include "lacuna/lacuna.h"
#include "method/calibrator.h"
#include "method/method.h"
#include "op/context.h"
#include "pattern/visibility.h"

namespace lacuna {

constexpr std::int32_t kBlockQ = 64;                // rows per block where the pattern does not say
constexpr std::int32_t kAuditEvery = 64;            // rows, of which one is audited: in decode, steps

// What kernels trust of a call's tensors: those read, and those written, whose rows must lie apart.
Status check_inputs(const AttendCall& c);
Status check_floats(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim);
Status check_written(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim);

constexpr std::uint64_t kDensePlan = 1;
std::uint64_t number_of(std::span<const Plan> plans);  // AttendCall::plan_number of plans that leave something out

struct Session::Impl final : Context {
  // One mask of the current graph and what follows from it.
  struct MaskEntry {
    const void* key = nullptr;
    Visibility visible;
    LoweredRuns dense;
    double allowed_pairs = 0;  // of one query head
    bool decode = false;
  };
  struct PhaseState {
    PhaseReport report;
    LossCounter loss, error;
    LossCounter missed;  // top keys of a row, one head of it
  };

  Status force(const std::string& kernel);
  Status attend(const AttendCall& c);
  Status attend_call(const AttendCall& c);
  void check_profiles(const AttendCall& c);
  MaskEntry& mask_entry(const AttendCall& c);
  static void read_mask(const Mask& mask, std::int32_t n_rows, std::int64_t n_cells, MaskEntry& to);
  op::Attend::Args base_args(const AttendCall& c, const MaskEntry& mask);
  PackedView packed(const AttendCall& c, const PackedTensor* kept, const Tensor& raw, op::Pack::Role role, Buffer& own);
  // The call's K and V packed, each when first asked for: of a quantised cache that may be never.
  const PackedView& packed_keys(const AttendCall& c);
  const PackedView& packed_values(const AttendCall& c);
  OrderedKeys ordered_keys(const AttendCall& c, const Segment& s);
  // A segment's packed keys in order, made when first asked for; lives as long as the view.
  class SegmentKeys final : public KeyOrder {
   public:
    void bind(Impl& impl, const AttendCall& c, const Segment& s) {
      impl_ = &impl;
      call_ = &c;
      segment_ = &s;
    }
    OrderedKeys ordered() override;

   private:
    Impl* impl_ = nullptr;
    const AttendCall* call_ = nullptr;
    const Segment* segment_ = nullptr;
    OrderedKeys keys_;
    bool known_ = false;
  };
  AttentionView view_of(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args,
                        SegmentKeys& keys);
  Status observe(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args, bool apart);
  Result<std::string> calibration() const;
  Status load_calibration(std::string_view text);
  Result<std::string> finish_calibration() const;
  const SideRequest& side_request(int layer);
  const SideView& side_of(const AttendCall& c);
  Status open_candidates();
  CallShape shape_of(const AttendCall& c) const;
  const CostModel& costs_for(const AttendCall& c);
  // What a method that leaves the choice to the engine was given for one segment.
  struct Chosen {
    Chooser::Call call;
    Chooser::Choice choice;
    const CostModel* costs = nullptr;
  };
  Chosen choose(const AttendCall& c, const MaskEntry& mask, const Segment& s);
  // What became of a segment: its density, and lost mass summed over all audited rows, trials included.
  struct Outcome {
    double density = 1, lost = 0;
    std::int64_t audited = 0;
    bool all_kept = false;  // nothing was left out, and what two log-sums differ by is rounding
  };
  void tell_chooser(const Chosen& chosen, const Outcome& outcome);
  bool drawn_now() const { return patterns && phase == &prefill; }  // does this call go into pictures?
  static bool causal(const Visibility& v, const Segment& s);
  bool windowed(const AttendCall& c, const MaskEntry& mask);
  Result<Plan> plan(const Method& method, const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args);
  Result<Outcome> attend_segment(const AttendCall& c, const MaskEntry& mask, const Segment& s, const Plan& plan,
                                 const op::Attend::Args& whole, bool trial);
  Status execute(const AttendCall& c, op::Attend::Args args);
  // The part of a call that covers the given rows.
  static op::Attend::Args rows_of(op::Attend::Args a, std::int32_t begin, std::int32_t end);

  // engine/planned.cpp
  Result<std::vector<std::int32_t>> plan_words(const AttendCall& c);
  Status decides_alone() const;
  Status make_plans(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args);
  Result<const std::vector<Segment>*> take_plans(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args);
  static Segment whole_call(const Visibility& visible);

  // engine/grad.cpp
  Status attend_grad(const AttendGradCall& g);
  Status grad_of_rows(const AttendGradCall& g, const op::Attend::Args& forward, const LoweredRuns& runs, std::int32_t first, bool add_up);

  // engine/audit.cpp
  struct AuditedRow {
    std::int32_t row;  // of the segment
    bool drawn;        // by chance
    bool counted;      // in the report: drawn, or all are
  };
  void draw_rows(const Segment& s, bool trial);
  void audit_lossless(const AttendCall& c, const MaskEntry& mask, const op::Attend::Args& args);
  void count_row(double lost, double error, bool drawn, bool counted);
  void end_row(bool nothing_left_out, bool drawn, bool counted);
  Status audit_segment(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args, Outcome& outcome);
  op::Attend::Args gather_rows(const op::Attend::Args& args, std::span<const std::int32_t> rows);
  Status peek(const AttendCall& c, const MaskEntry& mask, const Segment& s, const Plan& plan, const op::Attend::Args& args);

  // engine/recall.cpp
  bool draw_recall(bool decode_call, int heads, int& head);
  double missed_top_keys(const MaskEntry& mask, const Segment& s, std::int32_t row, int head, const op::Attend::Args& args);
  const float* scores_of(const op::Attend::Args& args, int head, std::int32_t row, std::int64_t begin_tile, std::int64_t end_tile);
  void count_recall(double missed, bool nothing_left_out);
  // engine/trials.cpp
  Status open_trials();
  Status try_methods(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args);

  // engine/keep_contract.cpp
  // Until its end of life all time is the contract's, whatever verb it is spent under.
  class Steered {
   public:
    explicit Steered(Impl& impl) : impl_(impl), start_(std::chrono::steady_clock::now()) { impl_.steering = true; }
    ~Steered() {
      impl_.steering = false;
      impl_.phase->report.contract_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    Steered(const Steered&) = delete;
    Steered& operator=(const Steered&) = delete;

   private:
    Impl& impl_;
    std::chrono::steady_clock::time_point start_;
  };
  Status open_contract();
  void renew_contract();
  const Method& method_now() const;
  void choose_heads(const AttendCall& c, const MaskEntry& mask);
  Plan with_dense_heads(const Plan& plan, std::int32_t heads) const;
  void tell_contract(const LoweredRuns& runs, std::int32_t heads, double pairs, bool of_dense);
  double kv_bytes(const op::Attend::Args& a, const LoweredRuns& runs) const;

  // engine/certify.cpp
  Status open_certificate();
  // Nothing is left out of the call.
  void certify_lossless(const AttendCall& c, const MaskEntry& mask, bool counted);
  // Bounds what the lowered `plan` loses. True: `wider` shall take its place, and that is what the bounds say.
  bool certify(const AttendCall& c, const MaskEntry& mask, const Segment& s, const Plan& plan, const op::Attend::Args& args, Plan& wider);
  void tell_certified(const AttendCall& c, const MaskEntry& mask, const Segment& s, bool counted, std::span<const double> bounds);

  // Context
  void* scratch(int slot, std::size_t bytes) override;
  ParallelFor& threads() override { return *parallel; }
  void add_time(Verb verb, double seconds) override {
    if (!steering) phase->report.seconds[static_cast<int>(verb)] += seconds;
  }
  void run_op(const char* name, const void* args) override;

  Options options;
  std::unique_ptr<Method> method;
  std::string spec, note, unfit;
  std::vector<double> rope_bases;  // of the layers seen, each once
  int last_layer = -1;
  bool all_layers_seen = false;
  std::vector<bool> windowed_layers;  // by layer, once a call showed it
  std::unique_ptr<Calibrator> calibrator;  // set: all runs dense, and it watches
  ModelFacts seen;                         // by the calibrator
  std::vector<std::unique_ptr<Method>> tried;  // as the calibrator's trials()
  Features have = 0;
  const kernel::Kernel<op::Attend>* forced = nullptr;
  std::unique_ptr<ParallelFor> own_pool;
  ParallelFor* parallel = nullptr;
  int n_layers = 0;
  std::int64_t prompt_tokens = -1;
  Rng rng{1}, recall_rng{2};

  std::vector<std::unique_ptr<MaskEntry>> masks;  // the first masks_used are of this graph
  std::size_t masks_used = 0;
  MaskEntry no_mask;                              // of the last call that had none
  bool graphs = false;                            // the host calls new_graph()
  std::vector<Plan> plans;
  std::vector<Segment> given_segments;  // of a plan that was handed in and speaks of the whole call
  std::unique_ptr<Chooser> chooser;                         // set: the method left the choice to the engine
  std::vector<std::unique_ptr<Method>> candidates[2];       // as the chooser numbers them, by phase
  std::deque<std::pair<CallShape, CostModel>> costs;        // of the shapes seen; stay where they are
  std::vector<Chosen> chosen;                               // by segment
  std::unique_ptr<Contract> contract;                       // set: options.max_loss or max_error
  std::vector<std::unique_ptr<Method>> wider;               // the method, keeping ever more
  Contract::Call contract_call;
  bool steering = false;                                    // a Steered is alive
  std::unique_ptr<Patterns> patterns;                       // set: options.patterns
  const Contract::Choice* heads = nullptr;                  // of this call; null: no contract, or not about this call
  std::unique_ptr<CertificateCount> certificate;            // set: options.certify
  CertifiedRow certified_row;
  LoweredRuns lowered, audit_runs;
  std::vector<AuditedRow> audited;          // of a segment
  std::vector<std::int32_t> rows_to_audit;  // of those, the ones that see enough keys
  Buffer recall_scores;                                 // of one row and head
  std::vector<std::pair<float, std::int32_t>> ranked;  // scores and their cells
  std::vector<std::uint32_t> kept_words;               // cells, a bit each
  Workspace workspace;
  PackedView call_k, call_v;  // of this call, once something reads them
  bool keys_packed = false, values_packed = false;
  InvertedRuns inverted;      // of the rows whose gradients are made
  Buffer grad_lse, grad_d_lse, grad_k, grad_v;
  Buffer own_k, own_v, ordered, lse, audit_q, audit_bias, audit_out, audit_lse;
  std::vector<Buffer> slots;
  std::vector<std::int32_t> from_list, to_list;
  std::vector<SideRequest> side_requests;  // by layer; null: not asked for yet
  SideStore own_side;                      // of a call without a kept copy
  const SideView* side = nullptr;          // of this call, once a plan wants it

  PhaseState prefill, decode, scratch_phase;
  PhaseState windowed_prefill, windowed_decode;  // of the layers in windowed_layers
  PhaseState* phase = &prefill;
  PassClock pass;
  const char* kernel_used = nullptr;
};

}  // namespace lacuna
