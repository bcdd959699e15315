// SPDX-License-Identifier: Apache-2.0
// Where the time goes: bars of the steps of attention, in the whole and alone.
#include <algorithm>
#include <iterator>

#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

struct Step {
  const char *key, *words;
};
constexpr Step kSteps[] = {
    {"estimate", "estimate"}, {"budget", "budget"}, {"attend", "attend"}, {"correct", "correct"}, {"account", "audit"}};

std::vector<Piece> pieces_of(const Json& run) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < std::size(kSteps); ++i)
    pieces.push_back({kSteps[i].words, html_colour(i), step_seconds(run, kSteps[i].key)});
  return pieces;
}

}  // namespace

std::string time_picture(const Json& document, const Json& length) {
  std::vector<Bar> bars;
  for (const Series& s : series_of(document)) {
    const Json* run = run_of(length, s);
    if (!run) continue;
    Bar bar{s.name, pieces_of(*run)};
    double rest = *figure(*run, "/ttft_s");
    for (const Piece& p : bar.pieces) rest -= p.seconds;
    bar.pieces.push_back({"the rest", kGrey, std::max(0.0, rest)});
    bars.push_back(std::move(bar));
  }
  return bars_picture(
      "time", "Time to the first token",
      "Bars: seconds to the first token of each method, split into the steps of attention and the rest.", bars,
      "The rest is all of llama.cpp: the products with weights, and stock's attention too.");
}

std::string steps_picture(const Json& document, const Json& length) {
  std::vector<Bar> bars;
  for (const Series& s : series_of(document))
    if (const Json* run = run_of(length, s); run && attention_seconds(*run)) bars.push_back({s.name, pieces_of(*run)});
  return bars_picture("steps", "Attention by steps",
                      "Bars: seconds of attention in the prompt of each method, split into its steps.", bars,
                      "Attention in the prompt alone. Estimate and budget choose, attend computes what was kept, audit "
                      "measures what was lost.");
}

}  // namespace lacuna::cli
