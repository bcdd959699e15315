// SPDX-License-Identifier: Apache-2.0
#include "engine/tune.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "account/loss.h"
#include "block/calibrate/assign.h"
#include "engine/registry.h"

namespace lacuna {
namespace {

// Rows of a band and layer below which what a head lost there is a guess: the band's heads stay dense.
constexpr std::int64_t kEnoughRows = 32;

// A band of a run of `longest` keys: its rows, and those of them whose losses count.
struct Stretch {
  double rows = 0, counted = 0;
};
Stretch stretch_of(const TrialSums& s, std::size_t band) {
  const std::int64_t begin = band > 0 ? s.bands[band - 1] : 0, end = std::min(s.bands[band], s.longest);
  return {static_cast<double>(std::max<std::int64_t>(0, end - begin)),
          static_cast<double>(std::max<std::int64_t>(0, end - std::max(begin, std::int64_t{kMinAuditedKeys} - 1)))};
}

// Methods whose choice is made for those heads alone that take one of them, whatever each keeps (Method::plan_each).
std::vector<bool> chosen_by_head(const std::vector<std::string>& specs) {
  std::vector<bool> out;
  for (const std::string& spec : specs) {
    const auto made = make_method(spec);
    out.push_back(made.ok() && !made.value()->estimate().empty());
  }
  return out;
}

block::LayerChoices layer_of(const TrialSums& s, const TrialSums::Cell& c, const PhaseCost& cost, const std::vector<bool>& by_head,
                             const Stretch& run, double chunk) {
  block::LayerChoices out;
  const bool known = c.rows >= kEnoughRows;
  const double keys = c.rows > 0 ? c.pairs / static_cast<double>(c.rows) : 0, pairs = keys * run.rows;
  const std::size_t methods = known ? s.methods.size() : 0;
  out.charge.push_back(0);
  std::vector<double> of_head;  // seconds of choosing
  for (std::size_t m = 0; m < methods; ++m) {
    const double all = cost.candidates[m].select.seconds(std::min(chunk, run.rows), keys) * run.rows / std::max(1.0, std::min(chunk, run.rows));
    out.charge.push_back(by_head[m] ? 0 : all);
    of_head.push_back(by_head[m] ? all / s.heads : 0);
  }
  for (int h = 0; h < s.heads; ++h) {
    auto& choices = out.heads.emplace_back();
    choices.push_back({cost.pair * pairs, 0});
    for (std::size_t m = 0; m < methods; ++m)
      choices.push_back({of_head[m] + cost.candidates[m].pair * pairs * c.kept[s.at(m, h)] / c.pairs, c.lost[s.at(m, h)] / static_cast<double>(c.rows) * run.counted});
  }
  return out;
}

// Only methods that some head takes stay in the table.
void drop_unused(TunedTable& t) {
  std::vector<std::uint8_t> number(t.methods.size(), 0);
  for (const auto& layer : t.choice)
    for (const std::uint8_t m : layer) number[m] = 1;
  std::vector<std::string> used = {t.methods.front()};
  for (std::size_t m = 1; m < number.size(); ++m)
    if (number[m]) {
      number[m] = static_cast<std::uint8_t>(used.size());
      used.push_back(t.methods[m]);
    }
  number[0] = 0;
  for (auto& layer : t.choice)
    for (std::uint8_t& m : layer) m = number[m];
  t.methods = std::move(used);
}

}  // namespace

std::vector<std::int64_t> tuning_bands(std::int64_t longest) {
  std::vector<std::int64_t> bands = {1024};
  while (bands.back() < longest) {  // 1024, 1536, 2048, 3072, ...
    const std::int64_t last = bands.back();
    bands.push_back((last & (last - 1)) == 0 ? last / 2 * 3 : last / 3 * 4);
  }
  return bands;
}

std::vector<std::string> tuning_methods(std::int64_t longest) {
  std::vector<std::string> out;
  for (const int sink : {32, 256})
    for (std::int64_t window : {64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768})
      if (window < longest) out.push_back(fmt::format("streamingllm:sink={}:window={}", sink, window));
  for (const char* mass : {"0.97", "0.98", "0.99", "0.995"}) out.push_back(fmt::format("xattention:mass={}", mass));
  for (const char* mass : {"0.95", "0.97", "0.98", "0.99", "0.995", "0.998"})
    for (const char* slash : {mass, "0.5", "0.02"}) out.push_back(fmt::format("sampleattention:mass={}:slash_mass={}", mass, slash));
  return out;
}

std::vector<bool> held_back(const std::vector<std::size_t>& tokens) {
  constexpr std::size_t kOneIn = 4;
  std::vector<std::size_t> by_length(tokens.size());
  std::iota(by_length.begin(), by_length.end(), std::size_t{0});
  std::stable_sort(by_length.begin(), by_length.end(), [&](std::size_t a, std::size_t b) { return tokens[a] > tokens[b]; });
  std::vector<bool> held(tokens.size());
  for (std::size_t i = 1; i < by_length.size(); i += kOneIn)
    held[by_length[i]] = i == 1 || 2 * tokens[by_length[i]] >= tokens[by_length[0]];
  return held;
}

Result<Tuning> tune(const TrialSums& s, const CostModel& costs, double max_loss, int chunk, int n_layers) {
  if (costs.prefill.candidates.size() != s.methods.size() || s.methods.size() > 254)
    return bad_argument(fmt::format("tune: costs of {} methods, need those of the {} that were tried, at most 254", costs.prefill.candidates.size(), s.methods.size()));
  const TrialSums::Cell never;
  const std::vector<bool> by_head = chosen_by_head(s.methods);
  const int layers = std::max(n_layers, s.layers);
  std::vector<block::BandChoices> bands;
  Tuning out;
  double rows = 0;
  for (std::size_t b = 0; b < s.bands.size(); ++b) {
    const Stretch run = stretch_of(s, b);
    block::BandChoices& band = bands.emplace_back();
    int seen = 0;  // layers that methods were tried in: others have a window of their own and count apart
    for (int l = 0; l < layers; ++l) {
      const TrialSums::Cell& cell = l < s.layers ? s.cell(b, l) : never;
      band.layers.push_back(layer_of(s, cell, costs.prefill, by_head, run, chunk));
      seen += cell.rows > 0;
      for (const auto& head : band.layers.back().heads) out.dense_seconds += head.front().seconds;
    }
    band.rows = run.counted * seen * s.heads;
    rows += band.rows;
  }
  const block::Assignment found = block::assign(bands, max_loss);
  out.seconds = found.seconds;
  out.lost = rows > 0 ? found.lost / rows : 0;
  out.table = {.methods = {"dense"}, .bands = s.bands, .layers = layers, .heads = s.heads, .choice = {}};
  out.table.methods.insert(out.table.methods.end(), s.methods.begin(), s.methods.end());
  for (const auto& of_band : found.method) out.table.choice.insert(out.table.choice.end(), of_band.begin(), of_band.end());
  drop_unused(out.table);
  return out;
}

}  // namespace lacuna
