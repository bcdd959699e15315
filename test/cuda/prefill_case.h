// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/prefill.h on the host: host_case.h's tensors, and lists of blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "host_case.h"
#include "kernel/cuda/prefill.h"

namespace lacuna::test {

enum class Cover { dense, random, partial, empty_rows, nothing };  // what lists name; dense: no lists
enum class Share { all, kv_head, head };

struct PrefillSpec {
  Dtype dtype = Dtype::bf16;
  int batch = 1, hq = 4, hkv = 2, nq = 200, nk = 200, dk = 128, dv = 128, block_q = 128, block_k = 128;
  bool causal = true, token_major = false, lse = true, lists_of_sequences = false;
  Cover cover = Cover::dense;
  Share share = Share::head;
  double density = 0.5;
  float spread = 1.0f;  // standard deviation of the logits
  std::uint64_t seed = 1;

  std::string line() const {
    static constexpr const char* kCover[] = {"dense", "random", "partial", "empty_rows", "nothing"};
    static constexpr const char* kShare[] = {"all", "kv_head", "head"};
    return fmt::format(
        "prefill {} b={} hq={} hkv={} nq={} nk={} dk={} dv={} blocks={}x{} causal={} token_major={} lse={} "
        "of_sequences={} "
        "cover={} share={} density={} spread={} seed={}",
        name_of(dtype), batch, hq, hkv, nq, nk, dk, dv, block_q, block_k, causal, token_major, lse, lists_of_sequences,
        kCover[static_cast<int>(cover)], kShare[static_cast<int>(share)], density, spread, seed);
  }
};

class PrefillCase : public HostCase<PrefillSpec> {
 public:
  explicit PrefillCase(const PrefillSpec& spec) : HostCase(spec, spec.seed * 7919 + 5) {
    for (HostTensor* t : {&q, &k, &v}) fill(*t);
    if (s.cover != Cover::dense) make_lists();
    hide_what_nobody_names();
  }

  int lists() const { return s.share == Share::all ? 1 : s.share == Share::head ? s.hq : s.hkv; }
  int list_batches() const { return s.lists_of_sequences ? s.batch : 1; }
  int blocks_q() const { return (s.nq + s.block_q - 1) / s.block_q; }
  int blocks_k() const { return (s.nk + s.block_k - 1) / s.block_k; }

  bool sees(int b, int h, int row, int key) const override {
    if (key >= s.nk || (s.causal && key > row + s.nk - s.nq)) return false;
    if (s.cover == Cover::dense) return true;
    const int entry = entry_of(b, h, row / s.block_q, key / s.block_k);
    if (entry < 0) return false;
    const int mask = bits[static_cast<std::size_t>(entry)];
    if (mask < 0) return true;
    const int c = key % s.block_k;
    const std::size_t word = (static_cast<std::size_t>(mask) * s.block_q + row % s.block_q) * (s.block_k / 32) + c / 32;
    return words[word] >> (c % 32) & 1u;
  }

  std::vector<std::int32_t> row_ptr, columns, bits;
  std::vector<std::uint32_t> words;

 private:
  // Entries in random order; of an empty_rows list every second query block and the first five have none.
  void make_lists() {
    for (int list = 0; list < list_batches() * lists(); ++list) {
      row_ptr.push_back(static_cast<std::int32_t>(columns.size()));
      for (int block = 0; block < blocks_q(); ++block) {
        std::vector<std::int32_t> named;
        const bool none = s.cover == Cover::nothing || (s.cover == Cover::empty_rows && (block < 5 || block % 2));
        for (int c = 0; c < blocks_k() && !none; ++c)
          if (rng_.uniform() < s.density) named.push_back(c);
        shuffle(named);
        for (const std::int32_t c : named) {
          columns.push_back(c);
          bits.push_back(s.cover == Cover::partial && rng_.below(2) ? add_mask() : -1);
        }
        row_ptr.push_back(static_cast<std::int32_t>(columns.size()));
      }
    }
  }
  std::int32_t add_mask() {
    const std::size_t per_row = s.block_k / 32, old = words.size();
    for (int r = 0; r < s.block_q; ++r) {
      const std::uint64_t kind = rng_.below(4);  // a row that sees nothing, one that sees all, else some
      for (std::size_t w = 0; w < per_row; ++w)
        words.push_back(kind == 0 ? 0u : kind == 1 ? ~0u : static_cast<std::uint32_t>(rng_.next()));
    }
    return static_cast<std::int32_t>(old / per_row) / s.block_q;
  }

  int entry_of(int b, int h, int block, int column) const {
    const int list = (s.lists_of_sequences ? b * lists() : 0) + h / (s.hq / lists());
    const std::size_t at = static_cast<std::size_t>(list) * (blocks_q() + 1) + static_cast<std::size_t>(block);
    for (int e = row_ptr[at]; e < row_ptr[at + 1]; ++e)
      if (columns[e] == column) return e;
    return -1;
  }

  // NaN where no kernel may look: blocks of keys that no list of a KV head names.
  void hide_what_nobody_names() {
    if (s.cover == Cover::dense) return;
    for (int b = 0; b < s.batch; ++b)
      for (int kv = 0; kv < s.hkv; ++kv)
        for (int c = 0; c < blocks_k(); ++c) {
          bool named = false;
          for (int h = kv * (s.hq / s.hkv); h < (kv + 1) * (s.hq / s.hkv); ++h)
            for (int block = 0; block < blocks_q(); ++block) named = named || entry_of(b, h, block, c) >= 0;
          if (named) continue;
          for (int j = c * s.block_k; j < std::min(s.nk, (c + 1) * s.block_k); ++j) {
            std::fill_n(k.data.begin() + k.at(b, kv, j, 0), s.dk, HostTensor::kUntouched);
            std::fill_n(v.data.begin() + v.at(b, kv, j, 0), s.dv, HostTensor::kUntouched);
          }
        }
  }
};

}  // namespace lacuna::test
