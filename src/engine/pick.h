// SPDX-License-Identifier: Apache-2.0
// pick: the first kernel of an op's list that has no reason to refuse; the reasons of the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/machine.h"
#include "kernel/kernel.h"
#include "lacuna/parallel.h"
#include "lacuna/result.h"
#include "op/alike.h"
#include "op/attend.h"
#include "op/attend_grad.h"
#include "op/attend_maxima.h"
#include "op/exact_mass.h"
#include "op/keep_mass.h"
#include "op/line_sums.h"
#include "op/pack.h"
#include "op/range_sums.h"
#include "op/segment_mass.h"
#include "op/side_scores.h"
#include "op/side_write.h"
#include "op/strided_scores.h"
#include "op/top_weights.h"

namespace lacuna {

namespace kernel {
extern const KernelList<op::Attend> attend_list;
extern const KernelList<op::AttendGrad> attend_grad_list;
extern const KernelList<op::Pack> pack_list;
extern const KernelList<op::StridedScores> strided_scores_list;
extern const KernelList<op::SideWrite> side_write_list;
extern const KernelList<op::PageScores> page_scores_list;
extern const KernelList<op::LabelScores> label_scores_list;
extern const KernelList<op::Int4Scores> int4_scores_list;
extern const KernelList<op::Int8Scores> int8_scores_list;
extern const KernelList<op::KeepMass> keep_mass_list;
extern const KernelList<op::TopWeights> top_weights_list;
extern const KernelList<op::ExactMass> exact_mass_list;
extern const KernelList<op::LineSums> line_sums_list;
extern const KernelList<op::SegmentMass> segment_mass_list;
extern const KernelList<op::Alike> alike_list;
extern const KernelList<op::RangeSums> range_sums_list;
extern const KernelList<op::AttendMaxima> attend_maxima_list;
}  // namespace kernel

std::string describe(Features features);

// A kernel of op attend by name; null if there is none.
const kernel::Kernel<op::Attend>* find_attend(std::string_view name);
// A causal call of `rows` rows with nothing special, to ask kernels about and never to run.
op::Attend::Args plain_call(PackFormat format, Dtype kv, Precision precision, int rows, int head_dim);

// Whether a fast kernel of this machine reads the call's quantised K and V where they lie: no packed copies are
// needed then. `forced`: the one kernel that may be taken, or null.
bool taken_in_place(op::Attend::Args args, Features have, int workers, const kernel::Kernel<op::Attend>* forced);

struct Refusal {
  std::string kernel, reason;
};

// Why a machine with `have` cannot run a kernel; empty if it can.
std::string missing_features(Features have, Features needs);

template <class Op>
const kernel::Kernel<Op>* pick(const kernel::KernelList<Op>& list, const typename Op::Args& args, Features have,
                               int workers, std::string_view forced = {}, std::vector<Refusal>* refusals = nullptr) {
  for (const auto* k : list) {
    const char* why = nullptr;
    if (!forced.empty() && forced != k->name) why = "another kernel is forced";
    else if (forced.empty() && k->only_forced) why = k->only_forced;
    else if ((have & k->needs) != k->needs) why = "";  // spelt out below, only if somebody listens
    else if (k->why_not) why = k->why_not(args, workers);
    if (!why && forced.empty() && k->yields) why = k->yields(args);
    if (!why) return k;
    if (refusals) refusals->push_back({k->name, *why ? why : missing_features(have, k->needs)});
  }
  return nullptr;
}

// Scratch memory of kernels, kept from call to call.
struct Workspace {
  Buffer scratch, shared;
  std::size_t bytes() const { return scratch.bytes() + shared.bytes(); }
};

template <class Op>
void run_kernel(const kernel::Kernel<Op>& k, const typename Op::Args& args, ParallelFor& parallel, Workspace& space) {
  const int workers = parallel.workers();
  const std::size_t each = k.scratch_bytes ? (k.scratch_bytes(args) + 63) & ~std::size_t{63} : 0;
  char* scratch = static_cast<char*>(space.scratch.grow(each * static_cast<std::size_t>(workers) + 64));
  void* shared = space.shared.grow((k.shared_bytes ? k.shared_bytes(args, workers) : 0) + 64);
  for (int phase = 0; phase < k.phases; ++phase)
    parallel.each(k.tasks(args, phase, workers), [&](int task, int worker) {
      k.run(args, phase, task, workers, scratch + each * static_cast<std::size_t>(worker), shared);
    });
}

}  // namespace lacuna
