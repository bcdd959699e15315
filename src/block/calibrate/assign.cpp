// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/assign.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lacuna::block {
namespace {

constexpr int kHalvings = 60;

struct Taken {
  double seconds = 0, lost = 0;
};
using Heads = std::vector<std::uint8_t>;

// The cheapest methods of a layer's heads at a price, with at most the one that is charged for.
Taken take(const LayerChoices& layer, double price, std::size_t charged, Heads* out) {
  Taken sum{layer.charge[charged], 0};
  for (const auto& head : layer.heads) {
    std::size_t best = 0;
    for (std::size_t m = 1; m < head.size(); ++m) {
      if (layer.charge[m] > 0 && m != charged) continue;
      const double at = head[m].seconds + price * head[m].lost, least = head[best].seconds + price * head[best].lost;
      if (at < least || (at == least && head[m].lost < head[best].lost)) best = m;
    }
    sum.seconds += head[best].seconds;
    sum.lost += head[best].lost;
    if (out) out->push_back(static_cast<std::uint8_t>(best));
  }
  return sum;
}

Taken best_of(const LayerChoices& layer, double price, Heads* out) {
  std::size_t best = 0;
  Taken least = take(layer, price, 0, nullptr);
  for (std::size_t m = 1; m < layer.charge.size(); ++m) {
    if (layer.charge[m] <= 0) continue;
    const Taken t = take(layer, price, m, nullptr);
    if (t.seconds + price * t.lost < least.seconds + price * least.lost) best = m, least = t;
  }
  return out ? take(layer, price, best, out) : least;
}

double lost_at(std::span<const BandChoices> bands, double price) {
  double lost = 0;
  for (const BandChoices& b : bands)
    for (const LayerChoices& l : b.layers) lost += best_of(l, price, nullptr).lost;
  return lost;
}

// The smallest price at which the bands lose no more than `most`.
double price_for(std::span<const BandChoices> bands, double most) {
  if (lost_at(bands, 0) <= most) return 0;
  double low = 1e-15, high = 1;  // seconds per lost row
  while (lost_at(bands, high) > most && high < 1e15) high *= 10;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = std::sqrt(low * high);
    (lost_at(bands, middle) > most ? low : high) = middle;
  }
  return high;
}

// Prices of bands that may lose their rows' share of the limit and what bands before them saved.
void set_prices(std::span<const BandChoices> bands, double limit, double saved, std::span<double> prices) {
  if (bands.empty()) return;
  double rows = 0;
  for (const BandChoices& b : bands) rows += b.rows;
  const double price = price_for(bands, limit * rows + saved);
  double lost = 0, may = saved, worst = 1e-9 * limit * rows;
  std::size_t broken = 0;  // bands up to the one at whose end most is lost beyond the limit
  for (std::size_t b = 0; b < bands.size(); ++b) {
    prices[b] = price;
    lost += lost_at(bands.subspan(b, 1), price);
    may += limit * bands[b].rows;
    if (lost - may > worst) worst = lost - may, broken = b + 1;
  }
  if (broken == 0 || broken == bands.size()) return;
  set_prices(bands.first(broken), limit, saved, prices.first(broken));
  double left = saved;
  for (std::size_t b = 0; b < broken; ++b) left += limit * bands[b].rows - lost_at(bands.subspan(b, 1), prices[b]);
  set_prices(bands.subspan(broken), limit, left, prices.subspan(broken));
}

}  // namespace

Assignment assign(std::span<const BandChoices> bands, double limit) {
  std::vector<double> prices(bands.size());
  set_prices(bands, limit, 0, prices);
  Assignment out;
  for (std::size_t b = 0; b < bands.size(); ++b) {
    auto& layers = out.method.emplace_back();
    for (const LayerChoices& l : bands[b].layers) {
      const Taken t = best_of(l, prices[b], &layers.emplace_back());
      out.seconds += t.seconds;
      out.lost += t.lost;
    }
  }
  return out;
}

}  // namespace lacuna::block
