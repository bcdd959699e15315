// SPDX-License-Identifier: Apache-2.0
// StreamingLLM, use A (the A-shape): the first `sink` keys and the last `window` keys of every row.
//   row i keeps key j  iff  j < sink  or  i - j < window
// One softmax, true positions, the cache stays whole (decode sees the same shape). Use B, the cache
// of fixed size with cache-relative positions, needs keys stored before RoPE and is a cache role.
// Xiao et al., ICLR 2024, arXiv:2309.17453.
#include <algorithm>

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
    .notes =
        "Use A of the paper: a mask over true positions; nothing is evicted, and decode sees the same shape. Use B "
        "(a cache of fixed size with positions inside the cache) needs keys stored before RoPE. Preset auto: a "
        "window of a quarter of the prompt, at least 64, because the published constants would keep everything of "
        "a short prompt; preset paper the published 4 + 1020. Not measured here: perplexity over 100,000 tokens.",
    .reads_prompt_end = true,
    .keep_all = "streamingllm:window=1073741824",
    .small = "streamingllm:sink=4:window=50",
    .exemptions = kExemptions,
};

class StreamingLlm final : public Method {
 public:
  std::int64_t sink = 4;
  std::int64_t window = 0;  // 0: a share of the prompt
  double keep = 0.25;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(sink, "sink", 0, 1 << 20, "first keys, always kept");
    v(window, "window", 0, std::int64_t{1} << 30, "newest keys of every row; 0 = keep * prompt, at least 64");
    v(keep, "keep", 0.0, 1.0, "share of the prompt in the window when window = 0", true);
  }
  Status preset(std::string_view name) override {
    if (name == "paper") {
      sink = 4;
      window = 1020;
    } else if (name == "auto") {
      *this = StreamingLlm();
    }
    return Method::preset(name);
  }
  Result<Plan> plan(const AttentionView& x, Context&) const override {
    const std::int64_t end = std::max(x.prompt_tokens, x.grid.first_key + x.grid.n_rows);
    const auto share = static_cast<std::int64_t>(keep * static_cast<double>(end));
    const std::int64_t width = window > 0 ? window : std::max<std::int64_t>(64, share);
    if (sink + width >= x.grid.n_keys) return dense_plan("streamingllm: sink + window cover all keys");
    // Only a window that is a share of the prompt asks where the prompt ends.
    const bool guessed = window == 0 && x.prompt_tokens < 0 && x.phase == Phase::prefill;
    return plan_of(Window{.sink = sink, .window = width},
                   guessed ? "streamingllm: the prompt's end is unknown: the window is a share of each chunk's end" : "");
  }
};

}  // namespace

LACUNA_METHOD(streamingllm, StreamingLlm)

}  // namespace lacuna::method
