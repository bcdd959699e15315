// SPDX-License-Identifier: Apache-2.0
// Prism: a block's mean of rotated vectors cancels the channels that rotate fast, and with them what depends on distance.
// So mean queries and mean keys are scored in two bands, fast and slow channels, each at a temperature that gives back
// the contrast which the means took from it; the blocks of either band are kept:
//   s[u, b] = softmax over b of  q_x[u] . k_x[b] / (sqrt(d_x) T_x),   x = the channels of a band, d_x of them
//   T_x     = sqrt(d_x / D)  rms(q_x) / rms(q)  rms(k_x) / rms(k),    over all mean queries and mean keys of a head
//   of each band the fewest key blocks that carry its mass; the first keys' blocks and those of own keys
// 2026, arXiv:2602.08426.
#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "block/block_set.h"
#include "block/budget/top_mass.h"
#include "block/estimate/block_sums.h"
#include "block/estimate/pooled.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"causal", "the temperature is made of all mean queries and keys of a call: what comes later moves it"},
    {"chunks", "the temperature is made of the mean queries of a chunk, and other chunks have others"},
};

constexpr Card kCard{
    .slug = "prism",
    .title = "Prism",
    .paper = "arXiv:2602.08426",
    .family = "prefill",
    .summary = "Key blocks from means, fast and slow rotating channels apart.",
    .notes =
        "Which channels rotate together must be told: rope = halves where channel i turns with i + D/2, as in most models of "
        "transformers and in llama.cpp's files of Qwen and Gemma; rope = pairs where neighbours do, as in llama.cpp's files of "
        "LLaMA and its kin (SmolLM2). With the wrong one the bands are mixtures, and the method a weaker one. Channels that do "
        "not rotate (rotary below the head's) belong to the slow band: the paper does not say. Bands are shares of the "
        "channels, so that they fit any head; the published 64 and 96 of 128 overlap. Blocks of fewer tokens are divided by their "
        "number (the official code counts padding). Of equal estimates at the end the lower block is kept (the official code "
        "keeps both).",
    .selects = "global",
    .keep_all = "prism:fast_mass=1:slow_mass=1",
    .small = "prism:fast_mass=0.3:slow_mass=0.3:block=32",
    .granule = 128,
    .exemptions = kExemptions,
};

class Prism final : public Method {
 public:
  double fast = 0.5, slow = 0.75, fast_mass = 0.95, slow_mass = 0.95, norm = 0;
  std::int64_t block = 64, sink = 1, rotary = 0;
  std::string rope = "halves";

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(fast, "fast", 0.0, 1.0, "share of the channels in the fast band, in whole pairs", true);
    v(slow, "slow", 0.0, 1.0, "share of the channels in the slow band, in whole pairs", true);
    v(fast_mass, "fast_mass", 0.0, 1.0, "share of the fast band's estimate to keep; 1 = everything", true);
    v(slow_mass, "slow_mass", 0.0, 1.0, "share of the slow band's; 1 = everything", true);
    v(norm, "norm", 0.0, 1e3, "temperature of both bands; 0 = from their energy");
    v(block, "block", 32, 128, "rows and keys of a block: 32, 64 or 128");
    v(sink, "sink", 0, std::int64_t{1} << 20, "first keys, always kept, in whole blocks");
    v(rope, "rope", "halves|pairs", "which channels rotate together: i and i + D/2, or neighbours");
    v(rotary, "rotary", 0, 4096, "first channels that rotate; 0 = all");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = Prism();
    if (name == "paper") block = 128;
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 32 && block != 64 && block != 128) return bad_argument(fmt::format("prism.block: got {}, need 32, 64 or 128", block));
    if (rotary % 2 != 0) return bad_argument(fmt::format("prism.rotary: got {}, need an even number", rotary));
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (rotary > x.dk) return bad_argument(fmt::format("prism.rotary: got {}, need 0..{}: a head of this model has {} channels", rotary, x.dk, x.dk));
    if (x.phase == Phase::decode) return dense_plan("prism: decode is dense");
    if (fast_mass >= 1 || slow_mass >= 1) return dense_plan("prism: all mass of a band, which keeps everything");
    if (x.grid.n_keys < 2 * block) return dense_plan(fmt::format("prism: {} keys, fewer than two blocks of {}", x.grid.n_keys, block));
    const Grid& g = x.grid;
    const auto b = static_cast<std::int32_t>(block);
    const std::int64_t row_blocks = (g.n_rows + block - 1) / block, key_blocks = (g.n_keys + block - 1) / block;
    auto* kept = context.scratch_as<std::uint8_t>(block::kSetSlot, static_cast<std::size_t>(g.heads * row_blocks * key_blocks));
    std::fill(kept, kept + g.heads * row_blocks * key_blocks, std::uint8_t{0});
    block::BlockSums rows, keys;
    {
      const Timed timed(context, Verb::estimate);
      rows = block::row_sums(x, b, context);
      keys = block::key_sums(x, b, context);
    }
    for (const bool is_fast : {true, false}) {
      const std::vector<std::int32_t> band = channels(x.dk, is_fast);
      std::vector<float> factor;
      block::PooledScores scores;
      {
        const Timed timed(context, Verb::estimate);
        factor = factors(x, rows, keys, band, context);
        scores = block::pooled_scores(x, of_band(rows, g.heads, band, context), keys, context);
      }
      const Timed timed(context, Verb::budget);
      context.threads().each(g.heads * scores.row_blocks, [&](int task, int) {
        const std::int32_t h = task / scores.row_blocks, u = task % scores.row_blocks;
        const auto seen = static_cast<std::int32_t>(causal_blocks(g, b, b, u));
        std::vector<float> work(static_cast<std::size_t>(seen));
        std::vector<std::int32_t> list(static_cast<std::size_t>(seen));
        float* p = scores.row(h, u);
        block::softmax(p, seen, factor[static_cast<std::size_t>(h)]);
        const std::int32_t n = block::top_mass(p, seen, 0, seen, is_fast ? fast_mass : slow_mass, block::TopMass::reach, work.data(), list.data());
        std::uint8_t* set = kept + task * key_blocks;
        for (std::int32_t i = 0; i < n; ++i) set[list[static_cast<std::size_t>(i)]] = 1;
        for (std::int64_t k = 0; k * block < sink && k < seen; ++k) set[k] = 1;
        for (std::int64_t k = first_own_block(g, b, b, u); k < seen; ++k) set[k] = 1;
      });
    }
    return plan_of(block::to_block_map(g, b, b, kept));
  }

 private:
  // The channels of a band of heads of `dim` channels. Pair p turns faster than p + 1; what does not rotate comes last, two by two.
  std::vector<std::int32_t> channels(std::int32_t dim, bool is_fast) const {
    const auto rotate = static_cast<std::int32_t>(rotary > 0 ? rotary : dim / 2 * 2);
    std::vector<std::int32_t> order;
    for (std::int32_t p = 0; p < rotate / 2; ++p) {
      order.push_back(rope == "halves" ? p : 2 * p);
      order.push_back(rope == "halves" ? p + rotate / 2 : 2 * p + 1);
    }
    for (std::int32_t d = rotate; d < dim; ++d) order.push_back(d);
    const auto size = std::clamp(static_cast<std::int32_t>(std::lround((is_fast ? fast : slow) * dim / 2)) * 2, std::min(2, dim), dim);
    return is_fast ? std::vector<std::int32_t>(order.begin(), order.begin() + size) : std::vector<std::int32_t>(order.end() - size, order.end());
  }

  // What pooled scores of a band are multiplied by, for each query head. x.scale stands for 1 / sqrt(D).
  std::vector<float> factors(const AttentionView& x, const block::BlockSums& rows, const block::BlockSums& keys,
                             const std::vector<std::int32_t>& band, Context& context) const {
    std::vector<float> out(static_cast<std::size_t>(x.grid.heads));
    const double share = static_cast<double>(band.size()) / x.dk;
    context.threads().each(x.grid.heads, [&](int h, int) {
      const double t = norm > 0 ? norm : std::sqrt(share) * energy(rows, h, band) * energy(keys, h / (x.grid.heads / x.hkv), band);
      out[static_cast<std::size_t>(h)] = static_cast<float>(x.scale / std::sqrt(share) / t);
    });
    return out;
  }

  // rms over a band's channels of a head's block means, as a multiple of that over all channels.
  static double energy(const block::BlockSums& sums, std::int64_t head, const std::vector<std::int32_t>& band) {
    constexpr double kLeast = 1e-6;
    double all = 0, part = 0;
    for (std::int64_t b = 0; b < sums.blocks(); ++b) {
      const float* s = sums.of(head, b);
      const double share = 1.0 / static_cast<double>(sums.size(b));
      for (std::int32_t d = 0; d < sums.dim; ++d) all += share * s[d] * share * s[d];
      for (const std::int32_t d : band) part += share * s[d] * share * s[d];
    }
    const auto rms = [&](double sum, double n) { return std::sqrt(sum / n / static_cast<double>(sums.blocks())) + kLeast; };
    const double ratio = rms(part, static_cast<double>(band.size())) / rms(all, sums.dim);
    return std::isfinite(ratio) ? ratio : 1.0;
  }

  // The sums with all channels but the band's set to 0: their products are those of the band.
  static block::BlockSums of_band(block::BlockSums sums, std::int64_t heads, const std::vector<std::int32_t>& band, Context& context) {
    const std::int64_t vectors = heads * sums.blocks();
    float* out = context.scratch_as<float>(block::kSlashSlot, static_cast<std::size_t>(vectors * sums.dim));
    std::fill(out, out + vectors * sums.dim, 0.0f);
    for (std::int64_t i = 0; i < vectors; ++i)
      for (const std::int32_t d : band) out[i * sums.dim + d] = sums.sum[i * sums.dim + d];
    sums.sum = out;
    return sums;
  }
};

}  // namespace

LACUNA_METHOD(prism, Prism)

}  // namespace lacuna::method
