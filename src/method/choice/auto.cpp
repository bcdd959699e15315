// SPDX-License-Identifier: Apache-2.0
// auto: the cheapest of several methods, layer by layer and call by call, and dense where none pays or
// the loss would pass the limit. Which one it is the engine decides, by what this machine was measured to
// take (engine/chooser.h); here is what it decides among.
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"sparse", "512 tokens are below every crossover: auto is dense there, as it should be"},
};

constexpr Card kCard{
    .slug = "auto",
    .title = "Automatic choice",
    .paper = "Lacuna's own",
    .family = "choice",
    .summary = "The cheapest method per layer and call by this machine's measured costs; dense where none pays.",
    .notes =
        "Dense below the crossover. Costs are measured once per machine and shape of call, in the first call of 1024 keys or "
        "more (a second or so), and kept in the folder costs of Lacuna's cache; lacuna explain shows them. A layer's density is "
        "found by trying a candidate; trials that do not pay may cost 1 % of the dense attention so far, by the cost model. A "
        "candidate is left for good in a layer where its audited loss passes max_loss; so auto audits, even if told not to. "
        "The limit is on a layer's mean over its audited rows: in decode these are few, and the mean is a wide guess at first.",
    .reads_prompt_end = true,
    .keep_all = "auto:prefill=none:decode=none",
    .small = "auto",
    .granule = 128,
    .exemptions = kExemptions,
};

class Auto final : public Method {
 public:
  double max_loss = 0.01;
  std::string prefill = "xattention", decode = "quest";

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(max_loss, "max_loss", 0.0, 1.0, "mean lost mass a layer may show before a candidate is left there");
    v(prefill, "prefill", "any|xattention|flexprefill|minference|none", "candidates for prompts; none = dense");
    v(decode, "decode", "quest|none", "candidates for decode; none = dense");
  }
  std::optional<Candidates> candidates() const override {
    const auto specs = [](const std::string& named) -> std::vector<std::string> {
      if (named == "none") return {};
      if (named == "any") return {"xattention", "flexprefill", "minference"};
      return {named};
    };
    return Candidates{specs(prefill), specs(decode), max_loss};
  }
  Result<Plan> plan(const AttentionView&, Context&) const override { return dense_plan("auto: the engine chooses"); }
};

}  // namespace

LACUNA_METHOD(auto, Auto)

}  // namespace lacuna::method
