// SPDX-License-Identifier: Apache-2.0
// Skeleton: a method to copy. It keeps every `every`-th block of keys, and always the first keys and a
// row's newest ones.
//   row block u keeps key block b  iff  b % every == 0  or  b holds a sink  or  b holds one of the
//   `window` keys up to a row's own
// Head of a real one: the idea, the formula, the paper. Three to eight lines.
#include <algorithm>

#include <fmt/format.h>

#include "method/method.h"

namespace lacuna::method {
namespace {

// Laws (docs/laws.md) that this method does not obey, each with its reason. Omit if there is none.
constexpr Exemption kExemptions[] = {
    {"needle", "three of four blocks between sink and window are out of reach by design"},
};

constexpr Card kCard{
    .slug = "skeleton",  // as in specs; a hyphen here is an underscore in file and identifier names
    .title = "Skeleton",
    .paper = "none",
    .family = "fixed",  // the folder below src/method/
    .summary = "Every n-th block of keys, first keys and newest keys.",
    .notes = "Row blocks count from the chunk's first row, so chunks that are no multiple of the block keep a "
             "little more at their edges.",
    .keep_all = "skeleton:every=1",                      // leaves nothing out, at any length
    .small = "skeleton:every=4:block=64:window=64",      // leaves something out at 512 tokens
    .granule = 128,                                      // rows that decide together: the largest block
    .exemptions = kExemptions,
};

class Skeleton final : public Method {
 public:
  // One member per parameter, with its default: preset `auto`.
  std::int64_t every = 4;
  std::int64_t block = 64;
  std::int64_t sink = 1;
  std::int64_t window = 64;

  const Card& card() const override { return kCard; }

  // Told once: parsing, range checks, help, docs and JSON come from here. Names: docs/parameters.md.
  void params(ParamVisitor& v) override {
    v(every, "every", 1, 1 << 20, "one block of keys in so many is kept");
    v(block, "block", 16, 128, "rows and keys of a block; a multiple of 16");
    v(sink, "sink", 0, 1 << 20, "first keys, always kept, in whole blocks");
    v(window, "window", 1, std::int64_t{1} << 30, "newest keys of every row, always kept, in whole blocks");
  }

  // Rules that a range cannot say. The text: name, value, what is allowed, what to do.
  Status check() const override {
    if (block % 16 != 0) return bad_argument(fmt::format("skeleton.block: got {}, need a multiple of 16", block));
    return {};
  }

  // The same call must give the same plan: nothing here may change. What changes from call to call
  // comes in through x, working memory through context.scratch_as.
  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("skeleton: decode is dense");
    if (every == 1) return dense_plan("skeleton: every = 1 keeps everything");
    const Timed timed(context, Verb::budget);  // its time is reported under this verb
    BlockMap map;
    map.heads = 1;  // one list for all query heads
    map.block_q = map.block_k = static_cast<std::int32_t>(block);
    map.n_rows = x.grid.n_rows;
    map.n_keys = x.grid.n_keys;
    map.row_ptr.push_back(0);
    for (std::int32_t u = 0; u < map.q_blocks(); ++u) {
      // Row i's own key is x.grid.first_key + i: any number, not only multiples of the block.
      const std::int64_t first_own = x.grid.first_key + u * block;
      const std::int64_t last_own = std::min(first_own + block, x.grid.first_key + x.grid.n_rows) - 1;
      const std::int64_t newest = std::max<std::int64_t>(0, first_own - window + 1) / block;
      for (std::int64_t b = 0; b <= last_own / block; ++b)  // no block after the rows' own keys
        if (b % every == 0 || b * block < sink || b >= newest) map.cols.push_back(static_cast<std::int32_t>(b));
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    }
    return plan_of(std::move(map));
  }
};

}  // namespace

LACUNA_METHOD(skeleton, Skeleton)

}  // namespace lacuna::method
