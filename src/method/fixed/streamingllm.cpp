// SPDX-License-Identifier: Apache-2.0
// StreamingLLM, use A (the A-shape): the first `sink` keys and the last `window` keys of every row.
//   row i keeps key j  iff  j < sink  or  i - j < window
// One softmax, true positions, the cache stays whole (decode sees the same shape). Use B, the cache
// of fixed size with cache-relative positions, needs keys stored before RoPE and is a cache role.
// Xiao et al., ICLR 2024, arXiv:2309.17453.
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"needle", "text outside sink and window is out of reach by design"},
};

constexpr Card kCard{
    .slug = "streamingllm",
    .title = "StreamingLLM (A-shape)",
    .paper = "arXiv:2309.17453",
    .family = "fixed",
    .summary = "Attention sinks and a sliding window, for every head and layer.",
    .notes = "Use A of the paper: a mask over true positions; nothing is evicted. Preset auto keeps a "
             "window of a quarter of the keys, at least 1020; preset paper the published 4 + 1020.",
    .keep_all = "streamingllm:window=1073741824",
    .small = "streamingllm:sink=4:window=50",
    .exemptions = kExemptions,
};

class StreamingLlm final : public Method {
 public:
  std::int64_t sink = 4;
  std::int64_t window = 0;  // 0: a share of the length
  double keep = 0.25;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(sink, "sink", 0, 1 << 20, "first keys, always kept");
    v(window, "window", 0, std::int64_t{1} << 30, "newest keys of every row; 0 = keep * length, at least 1020");
    v(keep, "keep", 0.0, 1.0, "share of the keys in the window when window = 0", true);
  }
  Status preset(std::string_view name) override {
    if (name == "paper") {
      sink = 4;
      window = 1020;
      return {};
    }
    return Method::preset(name);
  }
  Result<Plan> plan(const AttentionView& x, Context&) const override {
    const std::int64_t share = static_cast<std::int64_t>(keep * static_cast<double>(x.grid.n_keys));
    const std::int64_t width = window > 0 ? window : share > 1020 ? share : 1020;
    if (sink + width >= x.grid.n_keys) return dense_plan("sink + window cover all keys");
    return Plan{.pattern = Window{.sink = sink, .window = width}, .routes = {}, .weigh = {}, .why = {}};
  }
};

}  // namespace

LACUNA_METHOD(streamingllm, StreamingLlm)

}  // namespace lacuna::method
