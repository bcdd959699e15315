// SPDX-License-Identifier: Apache-2.0
// TriangleMix: shallow layers are dense; from layer_start on, rows see sinks and a window, and the
// prompt's last rows see everything (the triangle without its middle).
//   layer < layer_start:  dense
//   else row i keeps key j  iff  j < sink  or  i - j < window  or  i >= N - last_rows
// Decode is dense: nothing is evicted. He et al. 2025, arXiv:2507.21526.
#include <algorithm>

#include <fmt/format.h>

#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Card kCard{
    .slug = "trianglemix",
    .title = "TriangleMix",
    .paper = "arXiv:2507.21526",
    .family = "fixed",
    .summary = "Dense shallow layers; sinks, a window and dense last rows in the deep ones.",
    .notes =
        "The last rows are those of the prompt if the host announced its length, else those of every chunk: "
        "small chunks then keep more. Shallow layers are dense (the variant with a dynamic method there needs a "
        "layer policy). layer_start = -1 takes half of the layers, the published 16 of 32; the gradient probe "
        "that finds it per model is not here. Preset auto: a window of 1/16 of the prompt, 64..3968, and 128 "
        "last rows, at most 1/8 of the prompt; preset paper the published 8 + 512 and 128 last rows. Not measured "
        "here: needle retrieval on a model against the plain A-shape, and time to first token at 32,000 tokens and "
        "more.",
    .reads_prompt_end = true,
    .keep_all = "trianglemix:layer_start=0:window=1073741824",
    .small = "trianglemix:layer_start=0:sink=4:window=50:last_rows=60",
};

class TriangleMix final : public Method {
 public:
  std::int64_t sink = 8;
  std::int64_t window = 0;       // 0: a share of the prompt
  double keep = 0.0625;
  std::int64_t last_rows = -1;   // -1: 128, less for short prompts
  std::int64_t layer_start = -1;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(sink, "sink", 0, 1 << 20, "first keys, always kept");
    v(window, "window", 0, std::int64_t{1} << 30, "newest keys of every row; 0 = keep * prompt, 64..3968");
    v(keep, "keep", 0.0, 1.0, "share of the prompt in the window when window = 0", true);
    v(last_rows, "last_rows", -1, std::int64_t{1} << 30, "rows at the prompt's end that see everything; -1 = 128, at most an eighth");
    v(layer_start, "layer_start", -1, 4096, "first layer with the triangle; -1 = half of the layers");
  }
  Status preset(std::string_view name) override {
    if (name == "paper") {
      sink = 8;
      window = 512;
      last_rows = 128;
      layer_start = -1;
    } else if (name == "auto") {
      *this = TriangleMix();
    }
    return Method::preset(name);
  }

  Result<Plan> plan(const AttentionView& x, Context&) const override {
    if (x.n_layers > 0 && layer_start > x.n_layers)
      return bad_argument(fmt::format("trianglemix.layer_start: got {}, need -1..{}: the model has {} layers",
                                      layer_start, x.n_layers, x.n_layers));
    if (x.phase == Phase::decode) return dense_plan("trianglemix: decode is dense");
    if (layer_start < 0 && x.n_layers <= 0)
      return dense_plan("trianglemix: the number of layers is unknown; set layer_start");
    if (x.layer < (layer_start < 0 ? x.n_layers / 2 : layer_start)) return dense_plan("trianglemix: a shallow layer");
    // A chunk past the announced end (a second turn) stands for itself.
    const std::int64_t end = std::max(x.prompt_tokens, x.grid.first_key + x.grid.n_rows);
    const std::int64_t width =
        window > 0 ? window : std::clamp<std::int64_t>(static_cast<std::int64_t>(keep * static_cast<double>(end)), 64, 3968);
    const std::int64_t last = last_rows >= 0 ? last_rows : std::min<std::int64_t>(128, end / 8);
    const std::int64_t dense_from = std::max<std::int64_t>(0, end - last);
    if (sink + width >= x.grid.n_keys) return dense_plan("trianglemix: sink + window cover all keys");
    if (last > end)
      return dense_plan(fmt::format("trianglemix: last_rows = {} is more than the prompt's {} tokens", last, end));
    if (dense_from <= x.grid.first_key) return dense_plan("trianglemix: these rows are among the prompt's last");
    return plan_of(Window{.sink = sink, .window = width, .dense_from = dense_from},
                   x.prompt_tokens < 0 ? "trianglemix: the prompt's end is unknown: each chunk's last rows are dense" : "");
  }
};

}  // namespace

LACUNA_METHOD(trianglemix, TriangleMix)

}  // namespace lacuna::method
