// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/shape_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "block/estimate/key_scores.h"
#include "block/estimate/last_rows.h"
#include "block/estimate/pooled.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "block/stripes.h"

namespace lacuna::block {
namespace {

// The cheapest to plan comes first, and stays unless another loses less by more than this.
constexpr double kTie = 0.001;

struct Candidate {
  HeadKind kind;
  double columns;  // shares: part of the cost that goes into columns; counts: columns, or sinks
  double reach;    // counts: distances, window or blocks
};
constexpr Candidate kShares[] = {
    {HeadKind::a_shape, 0, 0},           {HeadKind::block_sparse, 0, 0},     {HeadKind::vertical_slash, 1.0 / 16, 0},
    {HeadKind::vertical_slash, 0.25, 0}, {HeadKind::vertical_slash, 0.5, 0}, {HeadKind::vertical_slash, 0.75, 0},
};
constexpr Candidate kCounts[] = {
    {HeadKind::a_shape, 100, 800},         {HeadKind::block_sparse, 0, 100},       {HeadKind::vertical_slash, 30, 800},
    {HeadKind::vertical_slash, 100, 750},  {HeadKind::vertical_slash, 100, 800},   {HeadKind::vertical_slash, 500, 700},
    {HeadKind::vertical_slash, 3500, 100}, {HeadKind::vertical_slash, 1000, 4096},
};
std::span<const Candidate> candidates(ShapeSearch::Of of) {
  return of == ShapeSearch::Of::shares ? std::span<const Candidate>(kShares) : std::span<const Candidate>(kCounts);
}

// Each item's place by falling score, the first `forced` before all others: as top_count takes them.
std::vector<std::int32_t> places_of(const float* score, std::int64_t n, std::int64_t forced) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin() + std::min(forced, n), order.end(),
                   [score](std::int32_t a, std::int32_t b) { return score[a] > score[b]; });
  std::vector<std::int32_t> places(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    places[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  return places;
}

// The first `count` by their places, ascending.
std::vector<std::int32_t> taken(const std::vector<std::int32_t>& places, std::int64_t count) {
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < places.size(); ++i)
    if (places[i] < count) out.push_back(static_cast<std::int32_t>(i));
  return out;
}

}  // namespace

// One call, and what of it is looked at.
struct ShapeSearch::Call {
  Grid grid;
  float scale;
  LineSums sums;
  PooledScores pooled;
  std::vector<std::int32_t> rows;    // judged
  std::vector<std::int32_t> blocks;  // the row blocks they lie in, ascending
  std::int64_t visible = 0;          // keys that these blocks touch if nothing is left out
  std::int64_t budget = 0;           // and may touch

  std::int64_t end(std::int32_t u) const {  // behind the last own key of row block u
    return std::min<std::int64_t>(grid.first_key + std::int64_t{u + 1} * kShapeBlock, grid.first_key + grid.n_rows);
  }
  std::int64_t touched(const std::vector<std::int32_t>& columns, const std::vector<std::int32_t>& distances) const {
    std::int64_t keys = 0;
    std::vector<Range> list;
    const Stripes stripes(grid, kShapeBlock, line_bits(columns, grid.n_keys), line_bits(distances, grid.n_keys));
    for (const std::int32_t u : blocks) {
      list.clear();
      stripes.append(u, list);
      for (const Range& r : list) keys += r.end - r.begin;
    }
    return keys;
  }
};

Status ShapeSearch::add(const AttentionView& x, Context& context) {
  const Grid& g = x.grid;
  if (heads_ == 0) heads_ = g.heads;
  if (g.heads != heads_)
    return unsupported(
        fmt::format("layer {} has {} query heads, others {}: a model whose layers differ has no one list of shapes",
                    x.layer, g.heads, heads_));
  if (x.layer >= layers()) layers_.resize(static_cast<std::size_t>(x.layer) + 1);
  judged_.resize(layers_.size(), 0);
  std::int64_t& judged = judged_[static_cast<std::size_t>(x.layer)];
  if (g.first_key == 0 || g.n_keys <= judged) judged = 0;  // another prompt
  longest_ = std::max(longest_, g.n_keys);
  const Lines& lines = settings_.lines;
  if (g.n_keys < kLeastKeys || g.n_rows < 4 * lines.last_rows || g.n_keys < judged + judged / 8) return {};
  judged = g.n_keys;

  Call call{.grid = g, .scale = x.scale, .sums = {}, .pooled = {}, .rows = {}, .blocks = {}};
  call.sums = last_rows(x, static_cast<std::int32_t>(lines.last_rows), context);
  call.pooled = pooled_scores(x, kShapeBlock, kShapeBlock, context);
  const std::int32_t rows = std::min(kRows, g.n_rows);
  for (std::int32_t i = 0; i < rows; ++i) {
    call.rows.push_back(static_cast<std::int32_t>((2 * std::int64_t{i} + 1) * g.n_rows / (2 * rows)));
    if (const std::int32_t u = call.rows.back() / kShapeBlock; call.blocks.empty() || call.blocks.back() != u)
      call.blocks.push_back(u);
  }
  std::vector<std::int32_t> columns(static_cast<std::size_t>(std::min(lines.sink, g.n_keys))),
      distances(static_cast<std::size_t>(std::min(lines.window, g.n_keys)));
  std::iota(columns.begin(), columns.end(), 0);
  std::iota(distances.begin(), distances.end(), 0);
  for (const std::int32_t u : call.blocks) call.visible += call.end(u);
  // What is forced is paid for by all.
  call.budget = std::max(static_cast<std::int64_t>(settings_.keep * static_cast<double>(call.visible)),
                         call.touched(columns, distances));

  auto& layer = layers_[static_cast<std::size_t>(x.layer)];
  const std::size_t per_head = candidates(settings_.of).size();
  layer.resize(static_cast<std::size_t>(heads_) * per_head);
  if (settings_.of == Of::shares && call.budget >= call.visible) return {};  // nothing to choose
  const std::int64_t q_head = std::int64_t{rows} * x.dk;
  float* q = context.scratch_as<float>(kPoolSlot, static_cast<std::size_t>(g.heads * q_head));
  for (std::int32_t h = 0; h < g.heads; ++h)
    for (std::int32_t i = 0; i < rows; ++i)
      std::copy_n(x.q + h * x.q_head + call.rows[static_cast<std::size_t>(i)] * x.q_row, x.dk,
                  q + h * q_head + std::int64_t{i} * x.dk);
  for_key_scores(x, {q, q_head, x.dk, rows, -1}, context, [&](std::int32_t h, float* score, std::int64_t score_row) {
    judge(call, h, score, score_row, &layer[static_cast<std::size_t>(h) * per_head]);
  });
  return {};
}

void ShapeSearch::judge(const Call& call, std::int32_t head, float* score, std::int64_t score_row, Tally* tally) const {
  const Grid& g = call.grid;
  const Lines& lines = settings_.lines;
  const std::int64_t n = g.n_keys;
  const auto rows = static_cast<std::int32_t>(call.rows.size());
  const auto n_blocks = static_cast<double>(call.blocks.size());
  // Sums of the exact attention of each row up to each key: a range's is a difference.
  std::vector<double> sums(static_cast<std::size_t>(rows * (n + 1)), 0.0);
  const auto sum_of = [&](std::int32_t i) { return sums.data() + std::int64_t{i} * (n + 1); };
  const auto own = [&](std::int32_t i) { return g.first_key + call.rows[static_cast<std::size_t>(i)]; };
  for (std::int32_t i = 0; i < rows; ++i) {
    float* p = score + i * score_row;
    softmax(p, own(i) + 1, call.scale);
    double* s = sum_of(i);
    for (std::int64_t j = 0; j < n; ++j) s[j + 1] = s[j] + (j <= own(i) ? p[j] : 0.0f);
  }
  const auto kept = [&](std::int32_t i, std::int64_t begin, std::int64_t end) {
    end = std::min(end, own(i) + 1);
    return begin < end ? sum_of(i)[end] - sum_of(i)[begin] : 0.0;
  };
  // Mean over rows of what `kept_of(i, row block)` leaves of 1.
  const auto count = [&](Tally& t, double columns, double reach, const auto& kept_of) {
    double lost = 0;
    for (std::int32_t i = 0; i < rows; ++i)
      lost += std::clamp(1.0 - kept_of(i, call.rows[static_cast<std::size_t>(i)] / kShapeBlock), 0.0, 1.0);
    ++t.calls;
    t.lost += lost / rows;
    t.columns += columns;
    t.reach += reach;
  };

  const bool shares = settings_.of == Of::shares;
  const auto best_columns = places_of(call.sums.vertical + std::int64_t{head} * n, n, lines.sink);
  const auto best_distances = places_of(call.sums.slash + std::int64_t{head} * n, n, lines.window);
  const double per_block = static_cast<double>(call.budget) / n_blocks;
  for (const Candidate& c : candidates(settings_.of)) {
    Tally& t = *tally++;
    if (c.kind == HeadKind::a_shape) {
      const std::int64_t sink = shares ? std::max<std::int64_t>(1, lines.sink) : static_cast<std::int64_t>(c.columns);
      const std::int64_t window = shares ? std::max<std::int64_t>(1, std::llround(per_block) - sink - (kShapeBlock - 1))
                                         : static_cast<std::int64_t>(c.reach);
      if (sink + window >= n) continue;
      count(t, static_cast<double>(sink), shares ? static_cast<double>(window) / static_cast<double>(n) : c.reach,
            [&](std::int32_t i, std::int32_t) {
              return kept(i, 0, sink) + kept(i, std::max(sink, own(i) + 1 - window), n);
            });
    } else if (c.kind == HeadKind::block_sparse) {
      const HeadShape shape{
          .kind = c.kind,
          .columns = 0,
          .reach = static_cast<std::int64_t>(c.reach),
          .share = shares ? static_cast<double>(call.budget) / static_cast<double>(call.visible) : 0.0};
      if (shares ? shape.share >= 1 : shape.reach >= call.pooled.key_blocks) continue;
      std::vector<float> work(static_cast<std::size_t>(call.pooled.key_blocks));
      std::vector<std::int32_t> list(work.size());
      count(t, 0, shares ? shape.share : c.reach, [&](std::int32_t i, std::int32_t u) {
        const std::int32_t blocks = best_blocks(g, shape, call.pooled.row(head, u), u, work.data(), list.data());
        double sum = 0;
        for (std::int32_t b = 0; b < blocks; ++b)
          sum += kept(i, std::int64_t{list[static_cast<std::size_t>(b)]} * kShapeBlock,
                      std::int64_t{list[static_cast<std::size_t>(b)] + 1} * kShapeBlock);
        return sum;
      });
    } else {
      std::int64_t n_columns = shares ? std::llround(c.columns * per_block) : static_cast<std::int64_t>(c.columns);
      n_columns = std::clamp<std::int64_t>(n_columns, std::min(lines.sink, n), n);
      const auto columns = taken(best_columns, n_columns);
      std::int64_t n_distances = std::max(static_cast<std::int64_t>(c.reach), std::min(lines.window, n));
      if (shares) {  // as many as fit: more distances never touch fewer keys
        // A distance within the first block's reach touches a key of its own in every block.
        const std::int64_t beyond = n - call.end(call.blocks.front());
        std::int64_t too_many = std::min<std::int64_t>(n, std::llround(per_block) + beyond + 1) + 1;
        while (n_distances + 1 < too_many) {
          const std::int64_t middle = n_distances + (too_many - n_distances) / 2;
          (call.touched(columns, taken(best_distances, middle)) <= call.budget ? n_distances : too_many) = middle;
        }
      }
      if (n_distances >= n || n_columns >= n) continue;
      const auto distances = taken(best_distances, n_distances);
      // Shares are of what is free to choose: what is forced does not grow with the prompt.
      const auto size = [&](std::int64_t count, std::int64_t forced) {
        return shares ? static_cast<double>(count - std::min(forced, n)) / static_cast<double>(n)
                      : static_cast<double>(count);
      };
      std::vector<Range> list;
      const Stripes stripes(g, kShapeBlock, line_bits(columns, n), line_bits(distances, n));
      count(t, size(n_columns, lines.sink), size(n_distances, lines.window), [&](std::int32_t i, std::int32_t u) {
        list.clear();
        stripes.append(u, list);
        double sum = 0;
        for (const Range& r : list) sum += kept(i, r.begin, r.end);
        return sum;
      });
    }
  }
}

bool ShapeSearch::any() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return !layer.empty(); });
}

std::optional<ShapeSearch::Found> ShapeSearch::found(int layer, int head) const {
  const auto& tallies = layers_[static_cast<std::size_t>(layer)];
  const auto all = candidates(settings_.of);
  if (tallies.empty()) return {};
  Found best{.kind = HeadKind::full, .columns = 0, .reach = 0, .lost = 2};
  for (std::size_t c = 0; c < all.size(); ++c) {
    const Tally& t = tallies[static_cast<std::size_t>(head) * all.size() + c];
    if (t.calls > 0 && t.lost / t.calls < best.lost - kTie)
      best = {all[c].kind, t.columns / t.calls, t.reach / t.calls, t.lost / t.calls};
  }
  if (best.kind == HeadKind::full) best.lost = 0;  // every candidate kept everything
  return best;
}

nlohmann::json ShapeSearch::save() const {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& layer : layers_) {
    nlohmann::json numbers = nlohmann::json::array();
    for (const Tally& t : layer)
      for (const double x : {t.calls, t.lost, t.columns, t.reach}) numbers.push_back(x);
    layers.push_back(std::move(numbers));
  }
  return {{"of", static_cast<int>(settings_.of)},
          {"keep", settings_.keep},
          {"lines", {settings_.lines.last_rows, settings_.lines.sink, settings_.lines.window}},
          {"heads", heads_},
          {"longest", longest_},
          {"layers", layers}};
}

Status ShapeSearch::load(const nlohmann::json& state) {
  const auto damaged = [](const char* what) {
    return bad_file(fmt::format("the saved search is damaged ({}): begin anew", what));
  };
  if (!state.is_object()) return damaged("no object");
  const nlohmann::json mine = save();
  for (const char* key : {"of", "keep", "lines"})
    if (state.value(key, nlohmann::json()) != mine[key])
      return bad_file(fmt::format("the saved search has another '{}' than asked for: begin anew", key));
  const auto figure = [&](const char* key, std::int64_t hi) {
    const auto it = state.find(key);
    return it != state.end() && it->is_number_integer() && *it >= 0 && *it <= hi ? it->get<std::int64_t>() : -1;
  };
  ShapeSearch loaded(settings_);
  const std::int64_t heads = figure("heads", 4096);
  loaded.longest_ = figure("longest", std::int64_t{1} << 31);
  const auto layers = state.find("layers");
  if (heads < 0 || loaded.longest_ < 0 || layers == state.end() || !layers->is_array() || layers->size() > 4096)
    return damaged("sizes");
  loaded.heads_ = static_cast<int>(heads);
  const std::size_t tallies = static_cast<std::size_t>(heads) * candidates(settings_.of).size();
  for (const auto& saved : *layers) {
    if (!saved.is_array() || (!saved.empty() && saved.size() != 4 * tallies)) return damaged("a layer");
    std::vector<double> x;
    for (const auto& number : saved) {
      if (!number.is_number() || !(number.get<double>() >= 0)) return damaged("a sum");
      x.push_back(number.get<double>());
    }
    std::vector<Tally> layer;
    for (std::size_t i = 0; i < x.size(); i += 4) layer.push_back({x[i], x[i + 1], x[i + 2], x[i + 3]});
    loaded.layers_.push_back(std::move(layer));
  }
  *this = std::move(loaded);
  return {};
}

}  // namespace lacuna::block
