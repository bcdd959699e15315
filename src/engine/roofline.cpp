// SPDX-License-Identifier: Apache-2.0
#include "engine/roofline.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "kernel/peak.h"
#include "kv/packed.h"

namespace lacuna {
namespace {

constexpr int kTries = 7;
constexpr double kLeast = 0.005;  // seconds of one try
constexpr std::int64_t kMemory = std::int64_t{1} << 28;  // bytes: more than caches hold

// The most per second, over several tries, that all threads do together: a peak is what is possible, so interruptions by others
// do not count.
double most_per_second(double (*work)(std::int64_t), ParallelFor& threads) {
  const int workers = threads.workers();
  std::vector<double> done(static_cast<std::size_t>(workers));
  const auto once = [&](std::int64_t rounds) {
    const double start = now();
    threads.each(workers, [&](int task, int) { done[static_cast<std::size_t>(task)] = work(rounds); });
    return now() - start;
  };
  std::int64_t rounds = 64;
  while (once(rounds) < kLeast) rounds *= 2;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const double t = once(rounds);
    double all = 0;
    for (double d : done) all += d;
    best = std::max(best, all / t);
  }
  return best;
}

double most_bytes_per_second(const kernel::Peak& peak, Buffer& memory, ParallelFor& threads) {
  constexpr int kPieces = 64;
  const bool fresh = memory.bytes() < kMemory;
  char* at = static_cast<char*>(memory.grow(kMemory));
  if (fresh) std::memset(at, 1, kMemory);  // else every page would be the same page of zeros
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const double start = now();
    threads.each(kPieces, [&](int task, int) { peak.read(at + kMemory / kPieces * task, kMemory / kPieces); });
    best = std::max(best, static_cast<double>(kMemory) / (now() - start));
  }
  return best;
}

const kernel::Peak* peak_of(std::string_view name, Features have) {
  for (int i = 0; i < kernel::kPeakCount; ++i) {
    const kernel::Peak& p = *kernel::kPeaks[i];
    const std::string_view whole = p.kernels;
    const bool named = name.substr(0, whole.size()) == whole && (name.size() == whole.size() || name[whole.size()] == '.');
    if (named && (have & p.needs) == p.needs) return &p;
  }
  return nullptr;
}

}  // namespace

double bytes_moved(const op::Attend::Args& a) {
  // Gathered cells are read from the raw tensors; so are whole tiles where there is no packed copy.
  const double cell = static_cast<double>(bytes_of(a.k_type, a.dk) + bytes_of(a.v_type, a.dv));
  const bool packed = a.packed_k.format != PackFormat::none;
  const double tile = packed ? static_cast<double>(a.packed_k.block_bytes() + a.packed_v.block_bytes()) : cell * kTileKeys;
  const int lists = a.runs.heads == 1 ? 1 : a.hkv, group = a.runs.heads == 1 ? 1 : a.hq / a.hkv;
  double bytes = 0;
  for (int h = 0; h < lists; ++h) {
    std::vector<bool> tiles(static_cast<std::size_t>(tiles_of(a.n_cells))), cells(static_cast<std::size_t>(a.n_cells));
    const auto name = [&](std::int32_t t) {
      if (t < a.runs.first_gathered) {
        tiles[static_cast<std::size_t>(t)] = true;
        return;
      }
      for (int b = 0; b < kTileKeys; ++b)
        if (const std::int64_t c = a.runs.cell(t, b); c >= 0) cells[static_cast<std::size_t>(c)] = true;
    };
    for (int q_head = h * group; q_head < (h + 1) * group; ++q_head)
      for (int block = 0; block < a.runs.n_blocks(); ++block) {
        const std::int32_t* at = a.runs.list(q_head, block);
        for (std::int32_t i = at[0]; i < at[1]; ++i)
          for (std::int32_t t = a.runs.runs[i].begin; t < a.runs.runs[i].end; ++t) name(t);
      }
    bytes += tile * static_cast<double>(std::count(tiles.begin(), tiles.end(), true)) +
             cell * static_cast<double>(std::count(cells.begin(), cells.end(), true));
  }
  const double q_and_out = 4.0 * a.hq * a.n_rows * static_cast<double>(a.dk + a.dv);
  return q_and_out + (lists == 1 ? bytes * a.hkv : bytes);
}

Terms Roofline::of(const std::string& kernel, Features have, const Work& work, ParallelFor& threads) {
  const kernel::Peak* peak = peak_of(kernel, have);
  if (!peak) return {};
  Speed& speed = speeds_[fmt::format("{} {}", peak->kernels, threads.workers())];
  if (speed.flops == 0)
    speed = {most_per_second(peak->products, threads), most_per_second(peak->weights, threads), most_bytes_per_second(*peak, memory_, threads)};
  return {true, work.flops / speed.flops, work.weights / speed.weights, work.bytes / speed.bytes};
}

}  // namespace lacuna
