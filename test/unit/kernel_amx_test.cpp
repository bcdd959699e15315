// SPDX-License-Identifier: Apache-2.0
// What kernel_attend_test does not ask of the AMX kernel: that the emulated tiles are the real ones,
// that nobody gets the emulation by accident, and odd scales.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "base/machine.h"
#include "kernel/cpu/amx/tiles.h"
#include "lacuna/lacuna.h"
#include "support/attend_case.h"

namespace lacuna::test {
namespace {

using kernel::amx::EmulatedTiles;

const kernel::Kernel<op::Attend>& find(std::string_view name) {
  for (const auto* k : kernel::attend_list)
    if (name == k->name) return *k;
  ADD_FAILURE() << "no kernel " << name;
  return **kernel::attend_list.begin();
}

// C += A B of one tile each, from A[16][32], B[32][16] and C[16][16].
std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, std::vector<float> c) {
  std::vector<std::uint16_t> left(512), right(512);
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 32; ++k) left[m * 32 + k] = float_to_bf16(a[m * 32 + k]);
  for (int k = 0; k < 32; ++k)
    for (int n = 0; n < 16; ++n) right[(k / 2 * 16 + n) * 2 + k % 2] = float_to_bf16(b[k * 16 + n]);
  EmulatedTiles t;
  t.load<2>(c.data(), 64);
  t.load<4>(left.data(), 64);
  t.load<6>(right.data(), 64);
  t.multiply_add<2, 4, 6>();
  t.store<2>(c.data(), 64);
  return c;
}

TEST(EmulatedTiles, MultipliesLikeAMatrixProduct) {
  Rng rng(3);
  std::vector<float> a(512), b(512), c(256);
  // Small whole numbers: every order of summing gives the same, exact, result.
  for (auto* x : {&a, &b, &c})
    for (float& y : *x) y = static_cast<float>(rng.below(33)) - 16;
  const std::vector<float> got = product(a, b, c);
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      float want = c[m * 16 + n];
      for (int k = 0; k < 32; ++k) want += a[m * 32 + k] * b[k * 16 + n];
      EXPECT_EQ(got[m * 16 + n], want) << m << " " << n;
    }
}

TEST(EmulatedTiles, SubnormalNumbersAreZeros) {
  const float tiny = std::numeric_limits<float>::denorm_min() * (1 << 20), small = 0x1p-100f;
  std::vector<float> a(512), b(512), c(256);
  a[0] = tiny, b[0] = 0x1p30f;                 // subnormal operand
  a[1 * 32 + 4] = small, b[4 * 16 + 1] = small;  // subnormal product
  c[2 * 16 + 2] = tiny;                        // subnormal sum
  for (const float x : product(a, b, c)) EXPECT_EQ(x, 0.0f);
}

TEST(EmulatedTiles, EvenAndOddProductsAreSummedApart) {
  // 2^24 and 1 meet only after the even sum has been cancelled by the odd one.
  std::vector<float> a(512), b(512), c(256);
  a[0] = 1, b[0 * 16] = 0x1p24f;
  a[1] = 1, b[1 * 16] = -0x1p24f;
  a[3] = 1, b[3 * 16] = 1;  // odd: -2^24 + 1 is exact
  a[2] = 1, b[2 * 16] = 1;  // even: 2^24 + 1 rounds to 2^24
  EXPECT_EQ(product(a, b, c)[0], 1.0f);
}

TEST(AmxAttend, EmulationRunsOnlyWhenAskedForByName) {
  AttendCase c({.n_rows = 70});  // too many for the decode kernels, which stand first
  AttendResult r;
  const op::Attend::Args a = c.args(PackFormat::pair16_bf16, Precision::fast, r);
  const Features without_amx = kAvx2 | kAvx512 | kAvx512Bf16;
  std::vector<Refusal> refusals;
  const auto* k = pick(kernel::attend_list, a, without_amx, 1, {}, &refusals);
  ASSERT_NE(k, nullptr);
  EXPECT_NE(std::string_view(k->name), "cpu.amx.emulated");
  bool told = false;
  for (const auto& x : refusals)
    told = told || (x.kernel == "cpu.amx.emulated" && x.reason == "emulation is for tests: force it by name");
  EXPECT_TRUE(told);
  EXPECT_EQ(pick(kernel::attend_list, a, without_amx, 1, "cpu.amx.emulated"), &find("cpu.amx.emulated"));
}

class AmxAttendOn : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string missing = missing_features(detect_features(), find(GetParam()).needs);
    if (!missing.empty()) GTEST_SKIP() << GetParam() << ": " << missing;
  }
};

// The last step is weighed alone. If a chunk ended just before it and its logits need a new top, what the chunk left in tile
// registers must be scaled too.
TEST_P(AmxAttendOn, TopsRiseRightAfterAChunk) {
  for (int tiles = 7; tiles <= 18; ++tiles)
    for (int seed = 1; seed <= 2; ++seed)
      check_attend(find(GetParam()), {.hq = 4, .hkv = 2, .dk = 128, .dv = 128, .n_rows = 20, .n_cells = 32 * tiles,
                                      .mask = MaskKind::dense, .spread = 6, .seed = static_cast<std::uint64_t>(seed)}, Precision::fast);
}

// Lists long enough for several spans and chunks, whole groups of heads per task, and the odd chunk.
TEST_P(AmxAttendOn, LongLists) {
  const auto& k = find(GetParam());
  EXPECT_TRUE(check_attend(k, {.hq = 8, .hkv = 2, .dk = 64, .dv = 64, .n_rows = 70, .n_cells = 2500}, Precision::fast));
  // Stacked rows enough, and heads, for spans to be copied.
  EXPECT_TRUE(check_attend(k, {.hq = 8, .hkv = 4, .dk = 48, .dv = 80, .n_rows = 200, .n_cells = 1100}, Precision::fast));
  EXPECT_TRUE(check_attend(k, {.hq = 9, .hkv = 3, .dk = 64, .dv = 64, .n_rows = 16, .n_cells = 1777,
                               .mask = MaskKind::random}, Precision::fast));
  EXPECT_TRUE(check_attend(k, {.hq = 6, .hkv = 2, .dk = 40, .dv = 72, .n_rows = 5, .n_cells = 3000,
                               .mask = MaskKind::window, .resume = true}, Precision::fast));
  EXPECT_TRUE(check_attend(k, {.hq = 1, .hkv = 1, .dk = 576, .dv = 512, .n_rows = 20, .n_cells = 300}, Precision::fast));
}

// Tasks are of several strips with one worker and of a single one with many: that must show in no bit, also where
// strips have lists of their own, share gathered tiles or see parts of tiles.
TEST_P(AmxAttendOn, SameBitsHoweverStripsAreCut) {
  const auto& k = find(GetParam());
  for (const AttendSpec& spec :
       {AttendSpec{.hq = 4, .hkv = 4, .dk = 64, .dv = 64, .n_rows = 300, .n_cells = 1500, .block_q = 32},
        AttendSpec{.hq = 8, .hkv = 4, .dk = 32, .dv = 64, .n_rows = 130, .n_cells = 1200, .block_q = 16,
                   .mask = MaskKind::random, .lists = Lists::per_head, .gather = Gather::some}}) {
    AttendCase c(spec);
    AttendResult one, many;
    const int few = k.tasks(c.args(k.pack, Precision::fast, one), 0, 1);
    ASSERT_LT(few, k.tasks(c.args(k.pack, Precision::fast, one), 0, 1000)) << spec.line() << ": the cut does not depend on workers";
    for (const auto& [workers, result] : {std::pair{1, &one}, std::pair{1000, &many}}) {
      const op::Attend::Args a = c.args(k.pack, Precision::fast, *result);
      Buffer scratch;
      void* memory = scratch.grow(k.scratch_bytes(a));
      for (int task = 0; task < k.tasks(a, 0, workers); ++task) k.run(a, 0, task, workers, memory, nullptr);
    }
    EXPECT_TRUE(one.same_bits(many)) << spec.line();
  }
}

// The largest score is not the largest logit where the scale is negative; all are equal where it is 0.
TEST_P(AmxAttendOn, AnyScale) {
  for (const float scale : {-0.5f, 0.0f}) {
    AttendCase c({.hq = 2, .hkv = 1, .dk = 32, .dv = 32, .n_rows = 21, .n_cells = 300});
    AttendResult got, want;
    op::Attend::Args a = c.args(PackFormat::pair16_bf16, Precision::fast, got);
    op::Attend::Args b = c.args(PackFormat::none, Precision::high, want);
    a.scale = b.scale = scale;
    Workspace space;
    run_kernel(find(GetParam()), a, *make_thread_pool(1), space);
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 21; ++i) op::attend_row_ref(b, h, i);
    const auto error = c.distance(got, want);
    EXPECT_TRUE(error.same_shape) << scale;
    EXPECT_LE(error.out, 0.05) << scale;
    EXPECT_LE(error.lse, 0.05) << scale;
  }
}

// Weights of a full tile are made by integers. With the numbers 1 as values, and a key of weight 1 in each row, the output
// says what they are: off by no more than rounding to bf16 (3.9e-3) and a little for the powers.
TEST_P(AmxAttendOn, WeightsOfFullTiles) {
  constexpr int kN = 64, kD = 32;  // rows; channels and keys
  std::vector<float> q(kN * kD), out(kN * kD);
  std::vector<std::uint16_t> k(kD * kD), v(kD * kD), mask(kN * kD);  // everything visible
  for (int i = 0; i < kN; ++i) q[i * kD] = 1 + i / 64.0f;
  for (int j = 0; j < kD; ++j) {
    k[j * kD] = float_to_half(-0.5f * j);
    v[j * kD + j] = float_to_half(1);
  }
  Options o;
  o.kernel = GetParam();
  o.audit = Audit::off;
  auto session = Session::open(o);
  ASSERT_TRUE(session.ok()) << session.error().what;
  AttendCall c;
  c.q = contiguous(q.data(), Dtype::f32, 1, 1, kN, kD);
  c.k = contiguous(k.data(), Dtype::f16, 1, 1, kD, kD);
  c.v = contiguous(v.data(), Dtype::f16, 1, 1, kD, kD);
  c.out = contiguous(out.data(), Dtype::f32, 1, 1, kN, kD);
  c.mask.data = mask.data();
  c.mask.row_stride = kD;
  c.scale = 1;
  const auto done = session.value()->attend(c);
  ASSERT_TRUE(done.ok()) << done.error().what;
  double worst = 0;
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j < kD; ++j) {
      const double want = std::exp(-0.5 * j * (1 + i / 64.0));
      worst = std::max(worst, std::fabs(out[i * kD + j] / static_cast<double>(out[i * kD]) / want - 1));
    }
  EXPECT_LE(worst, 4.7e-3);
  EXPECT_GT(worst, 1e-3);  // rounded they are
}

INSTANTIATE_TEST_SUITE_P(Tiles, AmxAttendOn, testing::Values("cpu.amx", "cpu.amx.emulated"), [](const auto& info) {
  return std::strlen(info.param) > 7 ? "emulated" : "hardware";
});

// Bit for bit: what the emulated kernel is tested for on any machine holds for the instructions.
TEST(AmxAttend, HardwareEqualsEmulation) {
  const auto &hardware = find("cpu.amx"), &emulated = find("cpu.amx.emulated");
  const std::string missing = missing_features(detect_features(), hardware.needs);
  if (!missing.empty()) GTEST_SKIP() << "cpu.amx: " << missing;
  const auto pool = make_thread_pool(2);
  Workspace space;
  for (const int d : {16, 64, 80, 128, 256}) {
    AttendCase c({.hq = 4, .hkv = 2, .dk = d, .dv = d, .n_rows = 50, .n_cells = 700, .spread = 3.0f, .sinks = true,
                  .seed = static_cast<std::uint64_t>(d)});
    const AttendResult x = run_attend(hardware, c, Precision::fast, *pool, space);
    const AttendResult y = run_attend(emulated, c, Precision::fast, *pool, space);
    EXPECT_TRUE(x.same_bits(y)) << "head_dim " << d << ": out differs by " << c.distance(x, y).out;
  }
}

// llama.cpp configures each thread's tiles once and relies on it; without that its products die of SIGILL.
TEST(Amx, LeavesTheThreadsTileConfigurationAsItWas) {
  const auto& k = find("cpu.amx");
  if (!missing_features(detect_features(), k.needs).empty()) GTEST_SKIP() << "cpu.amx: no AMX here";
  using Config = kernel::amx::HardwareTiles::Config;
  Config own, after;
  own.palette = 1;
  for (int i = 0; i < 8; ++i) {
    own.row_bytes[i] = 32;
    own.rows[i] = static_cast<std::uint8_t>(8 + i);
  }
  asm volatile("ldtilecfg %0" ::"m"(own) : "memory");
  const auto one = make_thread_pool(1);  // runs on this thread
  Workspace space;
  AttendCase c({.hq = 4, .hkv = 2, .n_rows = 40, .n_cells = 300});
  run_attend(k, c, Precision::fast, *one, space);
  asm volatile("sttilecfg %0" : "=m"(after)::"memory");
  asm volatile("tilerelease" ::: "memory");
  EXPECT_EQ(std::memcmp(&own, &after, sizeof own), 0);
}

}  // namespace
}  // namespace lacuna::test
