// SPDX-License-Identifier: Apache-2.0
// dense: everything the model allows. The baseline, the fallback, and what a plug-in without a
// method spec does.
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"sparse", "leaves nothing out by definition"},
};

constexpr Card kCard{
    .slug = "dense",
    .title = "Dense attention",
    .paper = "arXiv:1706.03762",
    .family = "fixed",
    .summary = "Leaves nothing out; Lacuna's own kernels.",
    .keep_all = "dense",
    .small = "dense",
    .exemptions = kExemptions,
};

class DenseAttention final : public Method {
 public:
  const Card& card() const override { return kCard; }
  void params(ParamVisitor&) override {}
  Result<Plan> plan(const AttentionView&, Context&) const override { return Plan{}; }
};

}  // namespace

LACUNA_METHOD(dense, DenseAttention)

}  // namespace lacuna::method
