// SPDX-License-Identifier: Apache-2.0
// Every pack kernel against the reference, bit for bit: types, formats, sizes, whole runs and lists.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "base/buffer.h"
#include "base/half.h"
#include "base/rng.h"
#include "engine/pick.h"
#include "kv/quantise.h"
#include "op/pack_ref.h"

namespace lacuna::test {
namespace {

struct PackSpec {
  op::Pack::Role role;
  Dtype dtype;
  PackFormat format;
  int heads, dim;
  std::int64_t cells, first, n;
  int lists;  // 0 none, 1 from, 2 to, 3 both
  std::uint64_t seed;
};

// Equal bits, or the same element a NaN in both.
bool same(const void* x, const void* y, std::size_t bytes, PackFormat format) {
  for (std::size_t i = 0; i < bytes / 2 && format != PackFormat::lane16_f32; ++i) {
    const std::uint16_t a = static_cast<const std::uint16_t*>(x)[i], b = static_cast<const std::uint16_t*>(y)[i];
    const std::uint16_t infinity = format == PackFormat::lane16_f16 ? 0x7c00 : 0x7f80;
    if (a != b && !((a & 0x7fff) > infinity && (b & 0x7fff) > infinity)) return false;
  }
  for (std::size_t i = 0; i < bytes / 4 && format == PackFormat::lane16_f32; ++i) {
    const std::uint32_t a = static_cast<const std::uint32_t*>(x)[i], b = static_cast<const std::uint32_t*>(y)[i];
    if (a != b && !((a & 0x7fffffff) > 0x7f800000 && (b & 0x7fffffff) > 0x7f800000)) return false;
  }
  return true;
}

void check_pack(const kernel::Kernel<op::Pack>& k, const PackSpec& s) {
  Rng rng(s.seed);
  std::vector<unsigned char> raw(static_cast<std::size_t>(bytes_of(s.dtype, s.cells * s.heads * s.dim)));
  if (s.seed % 2) {  // every kind of bit pattern
    for (auto& b : raw) b = static_cast<unsigned char>(rng.next());
  } else {
    std::vector<float> x(static_cast<std::size_t>(s.cells * s.heads * s.dim));
    for (float& e : x) e = static_cast<float>(rng.normal());
    store_elements(raw.data(), s.dtype, 0, x.data(), static_cast<std::int64_t>(x.size()));
  }
  std::vector<std::int32_t> from(static_cast<std::size_t>(s.n)), to(static_cast<std::size_t>(s.n));
  std::vector<std::int32_t> all(static_cast<std::size_t>(s.cells));
  std::iota(all.begin(), all.end(), 0);
  for (auto& f : from) f = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(s.cells)));
  // Targets are distinct; half of them stay in order, so that runs of 16 occur among single cells.
  for (std::size_t i = 0; i + 1 < all.size() / 2; ++i) std::swap(all[i], all[i + rng.below(all.size() / 2 - i)]);
  std::copy(all.end() - s.n, all.end(), to.begin());

  PackedView view{nullptr, s.format, s.heads, s.dim, s.cells};
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(s.cells) * s.heads);
  Buffer got, want;
  constexpr std::size_t kGuard = 256;
  for (Buffer* b : {&got, &want}) {
    std::memset(b->grow(bytes + 2 * kGuard), 0x5a, bytes + 2 * kGuard);
    std::memset(static_cast<char*>(b->data()) + kGuard, 0, bytes);
  }
  op::Pack::Args a;
  a.role = s.role;
  a.dtype = s.dtype;
  a.raw = raw.data();
  a.head = s.dim;
  a.cell = static_cast<std::int64_t>(s.heads) * s.dim;
  if (s.lists & 1) a.from = from.data();
  if (s.lists & 2) a.to = to.data();
  a.first = s.first;
  a.n = s.n;
  a.format = s.format;
  a.heads = s.heads;
  a.dim = s.dim;
  a.packed = static_cast<char*>(want.data()) + kGuard;
  op::pack_ref(a);
  a.packed = static_cast<char*>(got.data()) + kGuard;
  if (k.why_not && k.why_not(a, 1)) return;
  k.run(a, 0, 0, 1, nullptr, nullptr);
  EXPECT_TRUE(same(got.data(), want.data(), bytes + 2 * kGuard, s.format))
      << k.name << ": pack role=" << (s.role == op::Pack::Role::key ? "key" : "value") << " from=" << name_of(s.dtype)
      << " format=" << name_of(s.format) << " heads=" << s.heads << " dim=" << s.dim << " cells=" << s.cells
      << " first=" << s.first << " n=" << s.n << " lists=" << s.lists << " seed=" << s.seed;
}

TEST(PackKernels, EqualTheReference) {
  std::uint64_t seed = 0;
  for (const auto* k : kernel::pack_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    for (const auto role : {op::Pack::Role::key, op::Pack::Role::value})
      for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::q8_0, Dtype::q4_0})
        for (const PackFormat format : {PackFormat::pair16_bf16, PackFormat::lane16_f16, PackFormat::lane16_f32})
          for (const int dim : {16, 24, 40, 64, 72, 128, 200, 256})
            for (int lists = 0; lists < 4; ++lists) {
              ++seed;
              if (dim % block_size(dtype)) continue;
              const std::int64_t cells = 100 + static_cast<std::int64_t>(seed % 37);
              check_pack(*k, {role, dtype, format, 1 + static_cast<int>(seed % 3), dim, cells, 0, cells, lists, seed});
              check_pack(*k, {role, dtype, format, 2, dim, cells, 13, 70, lists, seed});
              check_pack(*k, {role, dtype, format, 1, dim, cells, 77, 1, lists, seed});
            }
  }
}

}  // namespace
}  // namespace lacuna::test
