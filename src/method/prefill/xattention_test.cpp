// SPDX-License-Identifier: Apache-2.0
// The sheet's proofs. Recall against density on a real model, and the estimator's share of the time,
// are measured end to end.
#include <gtest/gtest.h>

#include "block/budget/mass_blocks.h"
#include "block/estimate/antidiagonal.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_xattention();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

block::Antidiagonal estimate_of(const AttentionView& x, int stride, int block) {
  block::Antidiagonal a;
  a.grid = x.grid;
  a.hkv = x.hkv;
  a.dk = x.dk;
  a.q = x.q;
  a.q_head = x.q_head;
  a.q_row = x.q_row;
  a.packed_k = x.keys->ordered().packed;
  a.stride = stride;
  a.block = block;
  a.scale = x.scale;
  return a;
}

// The estimate by its definition, pair by pair, on the squares' grid. [head][row block][key block]
std::vector<double> by_definition(MethodLab& lab, std::int64_t begin, std::int64_t end, int stride, int block) {
  const std::int64_t row_blocks = (end - begin + block - 1) / block, key_blocks = (end + block - 1) / block;
  std::vector<double> mass(static_cast<std::size_t>(lab.hq * row_blocks * key_blocks), 0.0);
  for (int h = 0; h < lab.hq; ++h)
    for (std::int64_t own = (begin + stride - 1) / stride; own * stride < end; ++own) {  // column of the strided row
      std::vector<double> score;
      for (std::int64_t column = 0; column <= own; ++column) {
        double sum = 0;
        for (int s = 0; s < stride; ++s) {
          const std::int64_t row = own * stride + stride - 1 - s, key = column * stride + s;
          if (row < end && key < end) sum += lab.logit(h, row, key);
        }
        score.push_back(sum / stride);
      }
      const double top = *std::max_element(score.begin(), score.end());
      double total = 0;
      for (double s : score) total += std::exp(s - top);
      const std::int64_t last_row = std::min(own * stride + stride - 1, end - 1) - begin;
      for (std::size_t column = 0; column < score.size(); ++column)
        mass[static_cast<std::size_t>((h * row_blocks + last_row / block) * key_blocks) + column * stride / block] +=
            std::exp(score[column] - top) / total;
    }
  return mass;
}

TEST(XAttention, EstimateEqualsTheExplicitAntidiagonalSums) {
  for (int stride : {1, 2, 4, 8, 16})
    for (std::int64_t begin : {0, 64, 63, 5, 130})
      for (std::int64_t end : {195, 256, 301}) {
        MethodLab lab(4, 2, end, 8, static_cast<std::uint64_t>(stride + end));
        const auto x = lab.view(begin, end);
        const float* got = antidiagonal_mass(estimate_of(x, stride, 64), lab.context);
        const auto want = by_definition(lab, begin, end, stride, 64);
        for (std::size_t i = 0; i < want.size(); ++i)
          ASSERT_NEAR(got[i], want[i], 1e-4 * (1 + want[i])) << "stride=" << stride << " rows " << begin << ".." << end << " cell " << i;
      }
}

TEST(XAttention, StrideOneIsTheExactBlockMass) {
  constexpr std::int64_t kN = 200;
  MethodLab lab(2, 1, kN, 8, 9);
  const auto x = lab.view(0, kN);
  const float* got = antidiagonal_mass(estimate_of(x, 1, 64), lab.context);
  for (int h = 0; h < 2; ++h)
    for (int u = 0; u < 4; ++u)
      for (int b = 0; b < 4; ++b) {
        double want = 0;
        for (std::int64_t i = u * 64; i < std::min<std::int64_t>(kN, u * 64 + 64); ++i) {
          double total = 0, part = 0;
          for (std::int64_t j = 0; j <= i; ++j) {
            total += std::exp(lab.logit(h, i, j));
            if (j / 64 == b) part += std::exp(lab.logit(h, i, j));
          }
          want += part / total;
        }
        EXPECT_NEAR(got[(h * 4 + u) * 4 + b], want, 1e-3) << h << " " << u << " " << b;
      }
}

// The same squares whatever the chunk's first key: a strided row of a chunk is one of the whole prompt.
TEST(XAttention, ChunksSeeTheSquaresOfTheWholePrompt) {
  constexpr std::int64_t kN = 256 + 128;
  MethodLab lab(2, 2, kN, 8, 2);
  const auto whole_view = lab.view(0, kN);
  const float* whole = antidiagonal_mass(estimate_of(whole_view, 8, 128), lab.context);
  const std::vector<float> last(whole + 2 * 3, whole + 3 * 3);  // head 0, row block 2
  const auto x = lab.view(256, kN);
  const float* part = antidiagonal_mass(estimate_of(x, 8, 128), lab.context);
  for (int b = 0; b < 3; ++b) EXPECT_NEAR(part[b], last[static_cast<std::size_t>(b)], 1e-5);
  for (std::int64_t begin = 257; begin < 265; ++begin) {  // block sums: one per strided row
    const auto y = lab.view(begin, kN);
    const float* m = antidiagonal_mass(estimate_of(y, 8, 128), lab.context);
    EXPECT_NEAR(m[0] + m[1] + m[2], (kN - begin) / 8, 1e-3) << begin;
  }
}

struct Line {
  float contrast = 0;  // the block on the line against the mean of the others, row block 3
  float top = 0;
};

// N 512, block 128, stride 8: logits are 20 on a line and 0 elsewhere. Keys are one-hot, so that a
// query's channels are the logits themselves.
Line line_at(const std::function<bool(std::int64_t, std::int64_t)>& on, int line_block) {
  constexpr std::int64_t kN = 512;
  MethodLab lab(1, 1, kN, 512);
  std::fill(lab.q.begin(), lab.q.end(), 0.0f);
  std::fill(lab.k.begin(), lab.k.end(), 0.0f);
  const float height = 20.0f * std::sqrt(512.0f);
  for (std::int64_t j = 0; j < kN; ++j) lab.k_at(0, j)[j] = 1.0f;
  for (std::int64_t i = 0; i < kN; ++i)
    for (std::int64_t j = 0; j <= i; ++j)
      if (on(i, j)) lab.q_at(0, i)[j] = height;
  const auto x = lab.view(0, kN);
  const float* m = antidiagonal_mass(estimate_of(x, 8, 128), lab.context) + 3 * 4;  // the last row block
  Line out;
  out.top = m[line_block];
  float others = 0;
  for (int b = 0; b < 3; ++b)
    if (b != line_block) others += m[b] / 2;
  out.contrast = out.top / others;
  return out;
}

TEST(XAttention, AVerticalLineAtAnyColumnLiftsItsBlock) {
  for (std::int64_t column : {128, 131, 134, 200, 255})
    EXPECT_GT(line_at([&](std::int64_t, std::int64_t j) { return j == column; }, 1).contrast, 1.3f) << column;
}

TEST(XAttention, ASlashLineAtAnOddDistanceLiftsItsBlock) {
  const Line odd = line_at([](std::int64_t i, std::int64_t j) { return i - j == 251; }, 1);
  EXPECT_GT(odd.contrast, 1.5f);
  EXPECT_NEAR(odd.top, 7.7f, 0.4f);  // of 16, as the sheet computes it
}

// The documented limit: the antidiagonals of an even stride meet odd distances only.
TEST(XAttention, ASlashLineAtAnEvenDistanceIsInvisible) {
  const Line even = line_at([](std::int64_t i, std::int64_t j) { return i - j == 250; }, 1);
  EXPECT_NEAR(even.contrast, 1.0f, 1e-3f);
}

// Mean pooling of q and k is the weaker estimator: with keys that alternate in sign, pooled keys are 0.
TEST(XAttention, MeanPoolingMissesWhatTheAntidiagonalFinds) {
  constexpr std::int64_t kN = 512;
  MethodLab lab(1, 1, kN, 16, 4);
  std::fill(lab.q.begin(), lab.q.end(), 0.0f);
  std::fill(lab.k.begin(), lab.k.end(), 0.0f);
  for (std::int64_t i = 0; i < kN; ++i) lab.q_at(0, i)[0] = i % 2 ? 6.0f : -6.0f;
  for (std::int64_t j = 128; j < 256; ++j) lab.k_at(0, j)[0] = j % 2 ? -6.0f : 6.0f;  // odd distances agree
  double pooled = 0;
  for (std::int64_t j = 128; j < 256; ++j) pooled += lab.k_at(0, j)[0];
  EXPECT_EQ(pooled, 0.0) << "the mean of block 1 looks like the empty blocks";
  const auto x = lab.view(0, kN);
  const float* m = antidiagonal_mass(estimate_of(x, 8, 128), lab.context) + 3 * 4;
  EXPECT_GT(m[1], 10 * m[0]);
  EXPECT_GT(m[1], 10 * m[2]);
}

// By the estimate's own measure every row block keeps its share, block 0 and the diagonal are in, and
// nothing after a block's own keys is.
TEST(XAttention, KeepsTheMassBlockZeroAndTheDiagonalForEveryResidue) {
  for (int block : {64, 128})
    for (std::int64_t begin : {0, 1, 7, 64, 100, 128, 201})
      for (double mass : {0.3, 0.9}) {
        const std::int64_t end = begin + 2 * block + 37;
        MethodLab lab(4, 2, end, 8, static_cast<std::uint64_t>(begin + 1));
        for (float& q : lab.q) q *= 3;
        const AttentionView x = lab.view(begin, end);
        auto m = make(method_entry_xattention(), {{"block", double(block)}, {"mass", mass}, {"stride", 4}, {"sink", 1}, {"window", 1}});
        auto p = m->plan(x, lab.context);
        ASSERT_TRUE(p.ok());
        const auto& map = std::get<BlockMap>(p.value().pattern());
        ASSERT_TRUE(map.check().ok()) << map.check().error().what;
        const auto want = by_definition(lab, begin, end, 4, block);
        for (int h = 0; h < 4; ++h)
          for (std::int32_t u = 0; u < map.q_blocks(); ++u) {
            const std::int64_t first = begin + u * block, last = std::min<std::int64_t>(first + block, end) - 1;
            double kept = 0, total = 0, least = 1e30;
            for (std::int64_t b = 0; b < map.k_blocks(); ++b)
              total += want[static_cast<std::size_t>((h * map.q_blocks() + u) * map.k_blocks() + b)];
            const auto row = map.row(h, u);
            const auto in = [&](std::int64_t b) { return std::binary_search(row.begin(), row.end(), static_cast<std::int32_t>(b)); };
            for (std::int32_t b : row) {
              const double s = want[static_cast<std::size_t>((h * map.q_blocks() + u) * map.k_blocks() + b)];
              kept += s;
              if (b > 0 && b < first / block) least = std::min(least, s);
            }
            EXPECT_GE(kept, mass * total * (1 - 1e-5));
            if (least < 1e30) {
              EXPECT_LT(kept - least, mass * total * (1 + 1e-5)) << "one block too many";
            }
            EXPECT_TRUE(in(0));
            for (std::int64_t b = first / block; b <= last / block; ++b) EXPECT_TRUE(in(b)) << "diagonal block " << b;
            EXPECT_LE(row.back(), last / block) << "a future block";
          }
      }
}

TEST(XAttention, SinkAndWindowForceWholeBlocks) {
  MethodLab lab(1, 1, 700, 8);
  auto m = make(method_entry_xattention(), {{"block", 64}, {"mass", 1e-9}, {"sink", 65}, {"window", 200}});
  const auto x = lab.view(640, 700);
  const auto p = m->plan(x, lab.context);
  const auto& map = std::get<BlockMap>(p.value().pattern());
  const auto row = map.row(0, 0);
  EXPECT_EQ(std::vector<std::int32_t>(row.begin(), row.end()), (std::vector<std::int32_t>{0, 1, 6, 7, 8, 9, 10}));
}

TEST(XAttention, GoesDenseWithAReason) {
  MethodLab lab(1, 1, 600, 8);
  const auto dense = [&](std::initializer_list<std::pair<const char*, double>> values, std::int64_t begin, std::int64_t end) {
    auto p = lab.plan(*make(method_entry_xattention(), values), begin, end);
    return p.ok() && is_dense(p.value()) && !p.value().why.empty();
  };
  EXPECT_TRUE(dense({{"mass", 1.0}}, 0, 600));
  EXPECT_TRUE(dense({{"mass", 0.5}, {"block", 128}}, 0, 255)) << "fewer than two blocks";
  EXPECT_TRUE(dense({{"mass", 0.5}}, 599, 600)) << "decode";
  EXPECT_TRUE(dense({{"mass", 0.5}, {"stride", 8}}, 593, 600)) << "fewer rows than the stride";
  EXPECT_FALSE(dense({{"mass", 0.5}}, 0, 600));
}

TEST(XAttention, ScoresThatAreNoNumbersDoNotBreakTheSelection) {
  MethodLab lab(1, 1, 512, 8);
  lab.q_at(0, 300)[0] = NAN;
  lab.k_at(0, 100)[0] = INFINITY;
  auto p = lab.plan(*make(method_entry_xattention()), 0, 512);
  ASSERT_TRUE(p.ok());
  ASSERT_FALSE(is_dense(p.value()));
  EXPECT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
}

TEST(XAttention, ChecksItsParametersAndPresets) {
  for (double stride : {3.0, 7.0, 12.0}) {
    const Status s = make(method_entry_xattention(), {{"stride", stride}})->check();
    ASSERT_FALSE(s.ok());
    EXPECT_NE(s.error().what.find("need 1, 2, 4, 8 or 16"), std::string::npos);
  }
  EXPECT_FALSE(make(method_entry_xattention(), {{"block", 96}})->check().ok());
  auto m = make(method_entry_xattention());
  EXPECT_TRUE(m->check().ok());
  EXPECT_TRUE(m->preset("paper").ok());
  EXPECT_TRUE(m->check().ok());
  MethodLab lab(1, 1, 512, 8);
  EXPECT_EQ(std::get<BlockMap>(lab.plan(*m, 0, 512).value().pattern()).block_k, 128);
  EXPECT_TRUE(m->preset("auto").ok());
  EXPECT_EQ(std::get<BlockMap>(lab.plan(*m, 0, 512).value().pattern()).block_k, 64);
  EXPECT_FALSE(m->preset("quick").ok());
}

TEST(XAttention, CountsItsTimeUnderItsVerbs) {
  MethodLab lab(1, 1, 512, 8);
  ASSERT_TRUE(lab.plan(*make(method_entry_xattention()), 0, 512).ok());
  EXPECT_EQ(lab.context.timed[static_cast<int>(Verb::estimate)], 1);
  EXPECT_EQ(lab.context.timed[static_cast<int>(Verb::budget)], 1);
}

}  // namespace
}  // namespace lacuna::method
