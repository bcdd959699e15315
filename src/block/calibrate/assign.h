// SPDX-License-Identifier: Apache-2.0
// Assignment of methods to heads: the least time at which the mean loss stays within a limit.
//
// One price of lost mass over all heads, as a contract has (account/contract.h): each head takes the method with
// the least seconds + price * lost, and the price is the smallest at which the mean keeps the limit. What is found
// is on the edge of the possible: nothing that loses as little takes less time.
// A method that has to choose is charged once per layer, however many of its heads take it; a layer takes one such
// method at most.
//
// Bands are stretches of a run, in order. A run may end at the end of any of them, and must have kept the limit
// then: where the bands up to one lose more than their share, they get a price of their own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lacuna::block {

struct Choice {
  double seconds = 0;
  double lost = 0;  // summed over the band's rows
};
// Of one layer in one band. Method 0 loses nothing and is charged nothing.
struct LayerChoices {
  std::vector<double> charge;              // [methods] seconds for all heads together; > 0: it chooses
  std::vector<std::vector<Choice>> heads;  // [heads][methods]
};
struct BandChoices {
  double rows = 0;  // over layers and heads: what `lost` is a mean over
  std::vector<LayerChoices> layers;
};

struct Assignment {
  std::vector<std::vector<std::vector<std::uint8_t>>> method;  // [bands][layers][heads]
  double seconds = 0, lost = 0;
};

// limit: of lost / rows, of every run of bands from the first.
Assignment assign(std::span<const BandChoices> bands, double limit);

}  // namespace lacuna::block
