// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "engine/packed_tensor.h"
#include "kv/quantise.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

TEST(Session, UnknownMethodNamesTheNearest) {
  Options o;
  o.method = "streamingllmm";
  auto s = Session::open(o);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("did you mean 'streamingllm'"), std::string::npos) << s.error().what;
}

TEST(Session, DenseCausalEqualsTheFormula) {
  constexpr int kHq = 4, kHkv = 2, kN = 37, kD = 16;
  Rng rng(7);
  std::vector<float> q(kHq * kN * kD), out(q.size(), NAN);
  std::vector<std::uint16_t> k(kHkv * kN * kD), v(k.size());
  for (auto& x : q) x = static_cast<float>(rng.normal());
  for (auto& x : k) x = float_to_half(static_cast<float>(rng.normal()));
  for (auto& x : v) x = float_to_half(static_cast<float>(rng.normal()));
  Options o;
  o.precision = Precision::high;
  auto s = Session::open(o);
  ASSERT_TRUE(s.ok());
  AttendCall c;
  c.q = contiguous(q.data(), Dtype::f32, 1, kHq, kN, kD);
  c.k = contiguous(k.data(), Dtype::f16, 1, kHkv, kN, kD);
  c.v = contiguous(v.data(), Dtype::f16, 1, kHkv, kN, kD);
  c.out = contiguous(out.data(), Dtype::f32, 1, kHq, kN, kD);
  auto done = s.value()->attend(c);
  ASSERT_TRUE(done.ok()) << done.error().what;
  for (int h = 0; h < kHq; ++h)
    for (int i = 0; i < kN; ++i) {
      double l = 0;
      std::vector<double> acc(kD, 0.0);
      for (int j = 0; j <= i; ++j) {
        double x = 0;
        for (int d = 0; d < kD; ++d) x += static_cast<double>(q[(h * kN + i) * kD + d]) * half_to_float(k[((h / 2) * kN + j) * kD + d]);
        const double p = std::exp(x / 4.0);
        l += p;
        for (int d = 0; d < kD; ++d) acc[d] += p * half_to_float(v[((h / 2) * kN + j) * kD + d]);
      }
      for (int d = 0; d < kD; ++d) EXPECT_NEAR(out[(h * kN + i) * kD + d], acc[d] / l, 1e-4);
    }
}

// A causal call on random tensors; the cache is of any type.
struct Call {
  static constexpr int kHq = 4, kHkv = 2, kD = 64;
  std::vector<float> q, out;
  std::vector<unsigned char> k, v;
  AttendCall c;
  Call(int rows, int cells, Dtype kv, std::optional<Dtype> v_type = std::nullopt) {
    Rng rng(static_cast<std::uint64_t>(rows * 1000 + cells));
    q.resize(static_cast<std::size_t>(kHq * rows * kD));
    out.assign(q.size(), NAN);
    for (float& x : q) x = static_cast<float>(rng.normal());
    const auto n = static_cast<std::size_t>(kHkv * cells * kD);
    for (auto* t : {&k, &v}) {
      const Dtype type = t == &k ? kv : v_type.value_or(kv);
      std::vector<float> x(n);
      for (float& e : x) e = static_cast<float>(rng.normal());
      t->resize(static_cast<std::size_t>(bytes_of(type, static_cast<std::int64_t>(n))));
      store_elements(t->data(), type, 0, x.data(), static_cast<std::int64_t>(n));
    }
    c.q = token_major(q.data(), Dtype::f32, 1, kHq, rows, kD);
    c.k = token_major(k.data(), kv, 1, kHkv, cells, kD);
    c.v = token_major(v.data(), v_type.value_or(kv), 1, kHkv, cells, kD);
    c.out = token_major(out.data(), Dtype::f32, 1, kHq, rows, kD);
  }
  // Attends with the named kernel, by copies that a host kept if `kept`.
  Status run(const std::string& kernel, bool kept, std::string* ran = nullptr) {
    Options o;
    o.kernel = kernel;
    auto s = Session::open(o);
    if (!s.ok()) return s.error();
    PackedTensor pk(PackedTensor::Role::key, c.k.dtype, c.k.tokens(), kHkv, kD, o.precision, o.machine, o.kernel);
    PackedTensor pv(PackedTensor::Role::value, c.v.dtype, c.k.tokens(), kHkv, kD, o.precision, o.machine, o.kernel);
    if (kept) {
      pk.write(c.k, 0, c.k.tokens());
      pv.write(c.v, 0, c.v.tokens());
      c.packed_k = &pk;
      c.packed_v = &pv;
    }
    const Status done = s.value()->attend(c);
    c.packed_k = c.packed_v = nullptr;
    if (ran) *ran = s.value()->report().kernel;
    return done;
  }
};

// Whatever this machine runs by itself: K and V are packed as the forced kernel reads them.
TEST(Session, AForcedKernelRunsOrIsRefusedWhenOpened) {
  int ran = 0;
  for (const auto* k : kernel::attend_list) {
    Options o;
    o.kernel = k->name;
    auto s = Session::open(o);
    if (!s.ok()) {
      EXPECT_NE(s.error().what.find(k->name), std::string::npos) << s.error().what;
      const bool few = std::string_view(k->name).ends_with(".decode");
      EXPECT_TRUE(few || !missing_features(detect_features(), k->needs).empty()) << s.error().what;
      continue;
    }
    for (const Dtype kv : {Dtype::f16, Dtype::bf16, Dtype::f32})
      for (const int rows : {1, 5, 70}) {
        Call call(rows, 100, kv), want(rows, 100, kv);
        std::string name;
        const auto done = call.run(k->name, rows != 5, &name);
        ASSERT_TRUE(done.ok()) << k->name << ": " << done.error().what;
        EXPECT_EQ(name, k->name);
        ASSERT_TRUE(want.run("cpu.ref", false).ok());
        for (std::size_t i = 0; i < want.out.size(); ++i) ASSERT_NEAR(call.out[i], want.out[i], 0.02) << k->name;
        ++ran;
      }
  }
  EXPECT_GE(ran, 9);
}

// The same where this machine cannot run it.
TEST(Session, TheForcedKernelChoosesTheForm) {
  constexpr Features kAll = kAvx2 | kAvx512 | kAvx512Bf16 | kAmxBf16;
  EXPECT_EQ(choose_format(kAll, Dtype::f16, Precision::fast), PackFormat::pair16_bf16);
  for (const char* name : {"cpu.avx2", "cpu.avx512", "cpu.avx512.decode"}) {
    EXPECT_EQ(choose_format(kAll, Dtype::f16, Precision::fast, find_attend(name)), PackFormat::lane16_f16);
    EXPECT_EQ(choose_format(kAll, Dtype::bf16, Precision::fast, find_attend(name)), PackFormat::lane16_f32);
    EXPECT_EQ(choose_format(kAll, Dtype::f32, Precision::fast, find_attend(name)), PackFormat::lane16_f32);
  }
  EXPECT_EQ(choose_format(kAvx2, Dtype::f32, Precision::fast, find_attend("cpu.amx.emulated")), PackFormat::pair16_bf16);
  EXPECT_EQ(choose_format(kAll, Dtype::f16, Precision::fast, find_attend("cpu.ref")), PackFormat::pair16_bf16);
}

// Few rows read a quantised cache where it lies, many pack it for the call; the reference reads it as it is.
TEST(Session, QuantisedCachesGiveWhatTheReferenceGives) {
  using enum Dtype;
  const std::pair<Dtype, Dtype> types[] = {{q8_0, q8_0}, {q4_0, q4_0}, {q8_0, q4_0}, {f16, q8_0}, {q4_0, bf16}};
  for (const char* machine : {"", "avx512", "avx2", "none"})
    for (const auto& [k, v] : types)
      for (const int rows : {1, 8, 70})
        for (const Precision precision : {Precision::fast, Precision::high})
          for (const char* method : {"dense", "streamingllm:sink=4:window=32"}) {
            Options o;
            o.machine = machine;
            o.precision = precision;
            o.method = method;
            o.audit = Audit::full;
            auto s = Session::open(o);
            ASSERT_TRUE(s.ok()) << s.error().what;
            o.kernel = "cpu.ref";
            o.machine = "";
            auto by = Session::open(o);
            Call call(rows, 203, k, v), want(rows, 203, k, v);
            PackedTensor pk(PackedTensor::Role::key, k, 203, Call::kHkv, Call::kD, precision, machine);
            PackedTensor pv(PackedTensor::Role::value, v, 203, Call::kHkv, Call::kD, precision, machine);
            pk.write(call.c.k, 0, 203);
            pv.write(call.c.v, 0, 203);
            EXPECT_TRUE(!is_quantised(k) || pk.bytes() == 0) << "a quantised tensor was doubled";
            EXPECT_TRUE(!is_quantised(v) || pv.bytes() == 0) << "a quantised tensor was doubled";
            call.c.packed_k = &pk;
            call.c.packed_v = &pv;
            const auto done = s.value()->attend(call.c);
            ASSERT_TRUE(done.ok()) << done.error().what;
            const bool none = std::string_view(machine) == "none";
            if (!none || std::string_view(method) == "dense") {  // without AVX2 nothing is left out
              ASSERT_TRUE(by.value()->attend(want.c).ok());
              const double close = precision == Precision::fast && std::string_view(machine).empty() ? 0.02 : 2e-5;
              for (std::size_t i = 0; i < want.out.size(); ++i)
                ASSERT_NEAR(call.out[i], want.out[i], close)
                    << name_of(k) << " " << name_of(v) << " rows=" << rows << " machine=" << machine << " " << method;
            }
          }
}

TEST(Session, ADecodedTokenPacksNoQuantisedCache) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is packed";
  Call token(1, 20000, Dtype::q8_0), chunk(20, 20000, Dtype::q8_0);
  Options o;
  o.threads = 1;
  auto s = Session::open(o);
  const std::size_t packed = std::size_t{2} * 20000 * Call::kHkv * Call::kD * 2;
  ASSERT_TRUE(s.value()->attend(token.c).ok());
  EXPECT_LT(s.value()->own_bytes(), packed / 2);
  ASSERT_TRUE(s.value()->attend(chunk.c).ok());
  EXPECT_GE(s.value()->own_bytes(), packed);
}

TEST(Session, QuantisedTensorsHaveWholeBlocks) {
  auto s = Session::open({});
  const auto said = [&](const AttendCall& c, const char* part) {
    const auto done = s.value()->attend(c);
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().what.find(part), std::string::npos) << done.error().what;
  };
  Call call(1, 64, Dtype::q8_0);
  AttendCall c = call.c;
  c.q.n[3] = c.k.n[3] = 40;
  said(c, "k: 40 channels of q8_0, need a multiple of 32");
  c = call.c;
  c.v.n[3] = c.out.n[3] = 48;
  said(c, "v: 48 channels of q8_0, need a multiple of 32");
  c = call.c;
  c.k.stride[1] = 68;
  said(c, "k: stride 68 in dimension 1 of q8_0, need a multiple of 32");
  c = call.c;
  c.q.dtype = Dtype::q8_0;
  said(c, "q: type q8_0, need f32");
  c = call.c;
  c.k.dtype = Dtype::f16;
  c.v.dtype = Dtype::bf16;
  said(c, "or one of them q8_0 or q4_0");
}

// A scale that is no number, or infinite, spreads to the rows that see its key and to no other.
TEST(Session, ABadScaleSpreadsToTheRowsThatSeeIt) {
  for (const char* machine : {"", "avx512", "avx2", "none"})
    for (const Dtype type : {Dtype::q8_0, Dtype::q4_0})
      for (const std::uint16_t scale : {std::uint16_t{0x7e00}, std::uint16_t{0x7c00}})  // NaN, infinity
        for (const int rows : {2, 40}) {
          Options o;
          o.machine = machine;
          auto s = Session::open(o);
          Call clean(rows, 100, type), bad(rows, 100, type);
          ASSERT_TRUE(s.value()->attend(clean.c).ok());
          std::memcpy(bad.c.v.row(0, 0, 99), &scale, sizeof scale);  // seen by the last row alone
          ASSERT_TRUE(s.value()->attend(bad.c).ok());
          const std::size_t row = Call::kHq * Call::kD, before = static_cast<std::size_t>(rows - 1) * row;
          EXPECT_FALSE(std::isfinite(bad.out[before]));
          EXPECT_TRUE(std::isfinite(bad.out[before + 32]));       // the block after it
          EXPECT_TRUE(std::isfinite(bad.out[before + 3 * Call::kD]));  // the other KV head
        }
}

TEST(Session, ADecodeKernelIsRefusedWithItsReason) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2";
  Options o;
  o.kernel = "cpu.avx2.decode";
  auto s = Session::open(o);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("more than 8 rows"), std::string::npos) << s.error().what;
}

TEST(Session, WithoutAvx2TheReferenceRunsAndLeavesNothingOut) {
  for (const char* method : {"dense", "streamingllm:sink=4:window=8"}) {
    Options o;
    o.method = method;
    o.machine = "none";
    auto s = Session::open(o);
    ASSERT_TRUE(s.ok()) << s.error().what;
    Call call(20, 100, Dtype::f16), want(20, 100, Dtype::f16);
    ASSERT_TRUE(s.value()->attend(call.c).ok());
    ASSERT_TRUE(want.run("cpu.ref", false).ok());
    EXPECT_EQ(call.out, want.out);
    const Report r = s.value()->report();
    EXPECT_EQ(r.kernel, "cpu.ref");
    EXPECT_EQ(r.prefill.density(), 1);
    EXPECT_NE(r.note.find("no AVX2"), std::string::npos) << r.note;
  }
  Options o;
  o.machine = "avx9";
  auto s = Session::open(o);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("none, avx2"), std::string::npos) << s.error().what;
}

// Lacuna's own pool under everything a call does: packing, estimates, kernels, the audit.
TEST(Session, AnyNumberOfThreadsGivesTheSameBits) {
  for (const char* method : {"dense", "streamingllm:sink=4:window=64", "xattention:mass=0.5"})
    for (const int rows : {1, 300}) {
      Call one(rows, 700, Dtype::f16), four(rows, 700, Dtype::f16);
      for (Call* call : {&one, &four}) {
        Options o;
        o.method = method;
        o.audit = Audit::full;
        o.threads = call == &one ? 1 : 4;
        auto s = Session::open(o);
        const auto pool = make_thread_pool(o.threads);
        PackedTensor pk(PackedTensor::Role::key, Dtype::f16, 700, Call::kHkv, Call::kD, o.precision);
        PackedTensor pv(PackedTensor::Role::value, Dtype::f16, 700, Call::kHkv, Call::kD, o.precision);
        pk.write(call->c.k, 0, 700, pool.get());
        pv.write(call->c.v, 0, 700, pool.get());
        call->c.packed_k = &pk;
        call->c.packed_v = &pv;
        ASSERT_TRUE(s.value()->attend(call->c).ok());
      }
      EXPECT_EQ(one.out, four.out) << method << " " << rows << " rows";
    }
}

// What follows from rows and cells alone is kept from call to call: it must be theirs.
TEST(Session, CallsWithoutAMaskMayChangeTheirSize) {
  Options o;
  o.method = "streamingllm:sink=4:window=64";
  auto kept = Session::open(o);
  const int sizes[][2] = {{100, 300}, {100, 300}, {1, 301}, {100, 301}, {99, 300}, {300, 300}, {100, 300}};
  for (const auto& [rows, cells] : sizes) {
    Call one(rows, cells, Dtype::f16), two(rows, cells, Dtype::f16);
    ASSERT_TRUE(kept.value()->attend(one.c).ok());
    ASSERT_TRUE(Session::open(o).value()->attend(two.c).ok());
    EXPECT_EQ(one.out, two.out) << rows << " rows, " << cells << " cells";
  }
}

// A mask of the model's own: row i sees the `window` cells up to its own, the last of which is the last cell.
std::vector<std::uint16_t> window_mask(int rows, int cells, int window) {
  std::vector<std::uint16_t> mask(static_cast<std::size_t>(rows * cells), float_to_half(-INFINITY));
  for (int i = 0; i < rows; ++i) {
    const int own = cells - rows + i;
    for (int j = std::max(0, own - window + 1); j <= own; ++j) mask[static_cast<std::size_t>(i * cells + j)] = 0;
  }
  return mask;
}

TEST(SessionWindowed, LayersWithAWindowOfTheModelsOwnStayDense) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  const auto mask = window_mask(64, 700, 400), one_row = window_mask(1, 700, 400), open = window_mask(64, 700, 700);
  for (const bool sparse : {false, true}) {
    auto options = parse_options(std::string("streamingllm:sink=4:window=60 audit=full") + (sparse ? " windowed=sparse" : ""));
    ASSERT_TRUE(options.ok());
    auto s = Session::open(options.value());
    Call prompt(64, 700, Dtype::f16), want(64, 700, Dtype::f16), token(1, 700, Dtype::f16), whole(64, 700, Dtype::f16);
    const auto attend = [&](Session& by, Call& call, int layer, const std::vector<std::uint16_t>& m) {
      call.c.layer = layer;
      call.c.mask = {.data = m.data(), .row_stride = 700};
      return by.attend(call.c).ok();
    };
    ASSERT_TRUE(attend(*s.value(), prompt, 1, mask));     // says that layer 1 has one,
    ASSERT_TRUE(attend(*s.value(), token, 1, one_row));   // which a single row does not
    ASSERT_TRUE(attend(*s.value(), whole, 2, open));
    const Report r = s.value()->report();
    EXPECT_EQ(r.windowed_layers, sparse ? 0 : 1);
    EXPECT_EQ(r.prefill.windowed.calls, sparse ? 0 : 1);
    EXPECT_EQ(r.decode.windowed.calls, sparse ? 0 : 1);
    EXPECT_EQ(r.prefill.calls, sparse ? 2 : 1);
    EXPECT_EQ(r.decode.calls, sparse ? 1 : 0);
    EXPECT_EQ(r.prefill.lost.rows, (sparse ? 2 : 1) * 64 * Call::kHq);
    EXPECT_LT(r.prefill.density(), 0.5);  // of what is counted
    EXPECT_EQ(r.prefill.windowed.kv_bytes > 0, !sparse);
    auto dense = Session::open({});
    ASSERT_TRUE(attend(*dense.value(), want, 1, mask));
    EXPECT_EQ(prompt.out == want.out, !sparse);
    s.value()->reset_report();
    EXPECT_EQ(s.value()->report().prefill.windowed.calls, 0);
  }
}

LossStats lost_in_decode(Audit audit, int repeats) {
  // 280 keys fit the window: those calls leave nothing out. Of 600, more than half are left out.
  Call all(1, 280, Dtype::f16), some(1, 600, Dtype::f16);
  Options o;
  o.method = "streamingllm:sink=4:window=290";
  o.audit = audit;
  o.threads = 1;
  auto s = Session::open(o);
  for (int i = 0; i < repeats; ++i)
    for (Call* call : {&all, &some}) EXPECT_TRUE(s.value()->attend(call->c).ok());
  const Report r = s.value()->report();
  EXPECT_EQ(r.prefill.calls, 0);
  EXPECT_LT(r.decode.density(), 0.9);
  return r.decode.lost;
}

TEST(SessionAudit, SampledDecodeHasTheMeanOfTheWholeRun) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  const LossStats full = lost_in_decode(Audit::full, 1), sample = lost_in_decode(Audit::sample, 6400);
  EXPECT_EQ(full.rows, 2 * Call::kHq);
  EXPECT_GT(full.mean, 0.1);
  // 200 audited steps of 12800, half of them lossless.
  EXPECT_NEAR(static_cast<double>(sample.rows), 200.0 * Call::kHq, 60.0 * Call::kHq);
  EXPECT_NEAR(sample.mean, full.mean, 0.25 * full.mean);
}

// Two sequences side by side in one cache: the last rows of both in one call.
TEST(SessionAudit, DrawsAlikeWithAndWithoutSomethingLeftOut) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  constexpr int kRows = 40, kCells = 600;
  Call call(2 * kRows, 2 * kCells, Dtype::f16);
  std::vector<std::uint16_t> mask(std::size_t{2 * kRows} * 2 * kCells, 0xfc00);  // -infinity
  std::vector<std::int32_t> row_cell(2 * kRows);
  for (int i = 0; i < 2 * kRows; ++i) {
    const int first = i / kRows * kCells, own = first + kCells - kRows + i % kRows;
    for (int c = first; c <= own; ++c) mask[static_cast<std::size_t>(i * 2 * kCells + c)] = 0;
    row_cell[static_cast<std::size_t>(i)] = own;
  }
  call.c.mask = {mask.data(), 2 * kCells, row_cell.data(), nullptr};
  std::vector<std::int64_t> rows;
  for (const char* method : {"dense", "streamingllm:sink=4:window=64"}) {
    Options o;
    o.method = method;
    o.audit = Audit::sample;
    o.threads = 1;
    auto s = Session::open(o);
    for (int i = 0; i < 400; ++i) ASSERT_TRUE(s.value()->attend(call.c).ok());
    rows.push_back(s.value()->report().prefill.lost.rows);
  }
  EXPECT_EQ(rows[0], rows[1]);
  // One row in 64 of each sequence, whatever the size of a call.
  EXPECT_NEAR(static_cast<double>(rows[0]), 400.0 * 2 * kRows / 64 * Call::kHq, 50.0 * Call::kHq);
}

}  // namespace
}  // namespace lacuna
