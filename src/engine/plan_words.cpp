// SPDX-License-Identifier: Apache-2.0
#include "engine/plan_words.h"

#include <bit>
#include <limits>

#include <fmt/format.h>

namespace lacuna {
namespace {

using Words = std::vector<std::int32_t>;
enum Kind : std::int32_t { kDense, kWindow, kBlocks, kRanges };
constexpr std::int64_t kMostPatterns = 64;  // as check_plan() has it

void put64(Words& to, std::int64_t x) {
  to.push_back(static_cast<std::int32_t>(x));
  to.push_back(static_cast<std::int32_t>(x >> 32));
}

struct Writer {
  Words& to;
  void append(const std::vector<std::int32_t>& from) { to.insert(to.end(), from.begin(), from.end()); }
  void operator()(const Dense&) { to.push_back(kDense); }
  void operator()(const Window& w) {
    to.push_back(kWindow);
    for (const std::int64_t x : {w.sink, w.window, w.dense_from}) put64(to, x);
  }
  void operator()(const BlockMap& b) {
    to.insert(to.end(), {kBlocks, b.heads, b.block_q, b.block_k, b.n_rows, static_cast<std::int32_t>(b.n_keys),
                         static_cast<std::int32_t>(b.cols.size())});
    append(b.row_ptr);
    append(b.cols);
  }
  void operator()(const Ranges& r) {
    to.insert(to.end(), {kRanges, r.of == Ranges::Of::cells, r.heads, r.block_q, r.n_rows, static_cast<std::int32_t>(r.n),
                         static_cast<std::int32_t>(r.ranges.size())});
    append(r.row_ptr);
    for (const Range& x : r.ranges) to.insert(to.end(), {x.begin, x.end});
  }
};

// Takes words from the front; once too few are left, gives zeros and says so.
class Reader {
 public:
  explicit Reader(std::span<const std::int32_t> words) : left_(words) {}
  bool short_of() const { return short_; }
  std::size_t left() const { return left_.size(); }

  std::span<const std::int32_t> take(std::int64_t n) {
    if (n < 0 || n > static_cast<std::int64_t>(left_.size())) {
      short_ = true;
      return {};
    }
    const auto front = left_.first(static_cast<std::size_t>(n));
    left_ = left_.subspan(static_cast<std::size_t>(n));
    return front;
  }
  std::int32_t one() {
    const auto x = take(1);
    return x.empty() ? 0 : x[0];
  }
  std::int64_t two() {
    const std::int64_t low = static_cast<std::uint32_t>(one());
    return static_cast<std::int64_t>(one()) * (std::int64_t{1} << 32) + low;
  }
  Words list(std::int64_t n) {
    const auto x = take(n);
    return {x.begin(), x.end()};
  }

 private:
  std::span<const std::int32_t> left_;
  bool short_ = false;
};

// What leads to the size of a list must make sense before it is one.
Status check_sizes(const char* what, std::int32_t lists, std::int32_t block_q, std::int32_t rows, std::int32_t n) {
  if (lists < 1 || block_q < 1 || rows < 0 || n < 0)
    return bad_argument(fmt::format("plan: {} of {} lists, {} rows in blocks of {}, {} entries: need 1 or more lists and rows "
                                    "per block, 0 or more of the rest", what, lists, rows, block_q, n));
  return {};
}

std::int64_t pointers(std::int32_t lists, std::int32_t block_q, std::int32_t rows) {
  return lists * ((std::int64_t{rows} + block_q - 1) / block_q + 1);
}

Result<Pattern> read_pattern(Reader& in) {
  const std::int32_t kind = in.one();
  if (kind == kDense) return Pattern{Dense{}};
  if (kind == kWindow) {
    Window w;
    w.sink = in.two();
    w.window = in.two();
    w.dense_from = in.two();
    return Pattern{w};
  }
  if (kind == kBlocks) {
    BlockMap b;
    b.heads = in.one();
    b.block_q = in.one();
    b.block_k = in.one();
    b.n_rows = in.one();
    b.n_keys = in.one();
    const std::int32_t n = in.one();
    LACUNA_CHECK(check_sizes("block lists", b.heads, b.block_q, b.n_rows, n));
    b.row_ptr = in.list(pointers(b.heads, b.block_q, b.n_rows));
    b.cols = in.list(n);
    return Pattern{std::move(b)};
  }
  if (kind == kRanges) {
    Ranges r;
    const std::int32_t of = in.one();
    if (of != 0 && of != 1) return bad_argument(fmt::format("plan: ranges of {}, need 0 (keys) or 1 (cells)", of));
    r.of = of ? Ranges::Of::cells : Ranges::Of::keys;
    r.heads = in.one();
    r.block_q = in.one();
    r.n_rows = in.one();
    r.n = in.one();
    const std::int32_t n = in.one();
    LACUNA_CHECK(check_sizes("ranges", r.heads, r.block_q, r.n_rows, n));
    r.row_ptr = in.list(pointers(r.heads, r.block_q, r.n_rows));
    const auto pairs = in.take(std::int64_t{n} * 2);
    for (std::size_t i = 0; i < pairs.size(); i += 2) r.ranges.push_back({pairs[i], pairs[i + 1]});
    return Pattern{std::move(r)};
  }
  return bad_argument(fmt::format("plan: a pattern of kind {}, need 0..3", kind));
}

Result<Plan> read_plan(Reader& in) {
  Plan p;
  const std::int32_t patterns = in.one(), routes = in.one(), skips = in.one();
  if (patterns < 1 || patterns > kMostPatterns)
    return bad_argument(fmt::format("plan: {} patterns, need 1..{}", patterns, kMostPatterns));
  for (const std::int32_t r : in.take(routes)) {
    if (r < std::numeric_limits<Route>::min() || r > std::numeric_limits<Route>::max())
      return bad_argument(fmt::format("plan: route {}, need {} (off), {} (full) or the number of a pattern", r, kRouteOff, kRouteFull));
    p.routes.push_back(static_cast<Route>(r));
  }
  for (const std::int32_t bits : in.take(skips)) p.pv_skip.push_back(std::bit_cast<float>(bits));
  p.patterns.clear();
  for (std::int32_t i = 0; i < patterns && !in.short_of(); ++i) {
    auto one = read_pattern(in);
    if (!one.ok()) return one.error();
    p.patterns.push_back(std::move(one.value()));
  }
  return p;
}

}  // namespace

std::vector<std::int32_t> to_words(std::span<const Plan> plans) {
  Words w = {kPlanFormat, 0, static_cast<std::int32_t>(plans.size())};
  for (const Plan& p : plans) {
    for (const std::size_t n : {p.patterns.size(), p.routes.size(), p.pv_skip.size()}) w.push_back(static_cast<std::int32_t>(n));
    w.insert(w.end(), p.routes.begin(), p.routes.end());
    for (const float x : p.pv_skip) w.push_back(std::bit_cast<std::int32_t>(x));
    for (const Pattern& pattern : p.patterns) std::visit(Writer{w}, pattern);
  }
  w[1] = static_cast<std::int32_t>(w.size());
  return w;
}

Result<GivenPlans> plans_from_words(std::span<const std::int32_t> words) {
  Reader in(words);
  if (const std::int32_t format = in.one(); format != kPlanFormat)
    return bad_argument(fmt::format("plan: begins with {}, need {}: it was made by another version, or is no plan", format, kPlanFormat));
  if (const std::int32_t n = in.one(); n < 0 || static_cast<std::size_t>(n) != words.size())
    return bad_argument(fmt::format("plan: {} words, its head says {}: it was cut", words.size(), n));
  const std::int32_t segments = in.one();
  GivenPlans given;
  given.whole = segments == kWholeCall;
  for (std::int32_t i = 0; i < (given.whole ? 1 : segments) && !in.short_of(); ++i) {
    auto p = read_plan(in);
    if (!p.ok()) return p.error();
    given.plans.push_back(std::move(p.value()));
  }
  if (in.short_of() || in.left() || segments < kWholeCall)
    return bad_argument(fmt::format("plan: its lists and its {} words do not fit", words.size()));
  return given;
}

}  // namespace lacuna
