// SPDX-License-Identifier: Apache-2.0
#include "cli/task/names.h"

#include <algorithm>
#include <iterator>

namespace lacuna::cli::task {

namespace {

constexpr const char* kThings[] = {
    "lighthouse", "orchard", "violin", "glacier", "lantern", "harbour", "compass", "windmill", "meadow", "telescope",
    "bakery",     "canyon",  "piano",  "volcano", "library", "bicycle", "castle",  "dolphin",  "garden", "hammer",
    "island",     "jungle",  "kettle", "ladder",  "market",  "needle",  "oven",    "parrot",   "quarry", "river",
    "saddle",     "tunnel",  "valley", "walnut",  "yacht",   "zebra",   "anchor",  "bridge",   "candle", "desert"};

}  // namespace

std::string number(Rng& rng, int n) {
  std::string out(1, static_cast<char>('1' + rng.below(9)));
  while (static_cast<int>(out.size()) < n) out += static_cast<char>('0' + rng.below(10));
  return out;
}

std::vector<std::string> things(Rng& rng, std::size_t n) {
  std::vector<std::string> list(std::begin(kThings), std::end(kThings));
  shuffle(rng, list);
  list.resize(std::min(n, list.size()));
  return list;
}

}  // namespace lacuna::cli::task
