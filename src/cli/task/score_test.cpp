// SPDX-License-Identifier: Apache-2.0
#include "cli/task/score.h"

#include <gtest/gtest.h>

namespace lacuna::cli::task {
namespace {

TEST(TaskScore, AnyIsOneWholeAnswer) {
  EXPECT_EQ(score_answer(Scoring::any, {"48213"}, " 48213. Keep it"), 1);
  EXPECT_EQ(score_answer(Scoring::any, {"48213"}, "148213"), 0);
  EXPECT_EQ(score_answer(Scoring::any, {"4821973"}, "It is 4,821,973, surely"), 1);
  EXPECT_EQ(score_answer(Scoring::any, {"4821"}, "4, 821"), 0);
  EXPECT_EQ(score_answer(Scoring::any, {"no", "New  York"}, "in NEW\nyork!"), 1);
  EXPECT_EQ(score_answer(Scoring::any, {"york new"}, "New York"), 0);
  EXPECT_EQ(score_answer(Scoring::any, {"x"}, ""), 0);
  EXPECT_EQ(score_answer(Scoring::any, {"..."}, "..."), 0);  // no word to find
  EXPECT_EQ(score_answer(Scoring::any, {"\xE6\xBC\xA2"}, "\xE6\xBC\xA2\xE5\xAD\x97"), 1);
}

TEST(TaskScore, AllIsAShare) {
  EXPECT_EQ(score_answer(Scoring::all, {"a", "b", "c", "d"}, "d, a"), 0.5);
  EXPECT_EQ(score_answer(Scoring::all, {"a", "b"}, "b a"), 1);
  EXPECT_EQ(score_answer(Scoring::all, {"a", "b"}, "ab"), 0);
}

TEST(TaskScore, ExactAndF1) {
  EXPECT_EQ(score_answer(Scoring::exact, {"Paris"}, " paris.\n"), 1);
  EXPECT_EQ(score_answer(Scoring::exact, {"Paris"}, "in Paris"), 0);
  EXPECT_DOUBLE_EQ(score_answer(Scoring::f1, {"x", "the old castle"}, "a castle"), 2 * 1 / 5.0);
  EXPECT_EQ(score_answer(Scoring::f1, {"the old castle"}, ""), 0);
}

TEST(TaskScore, LikenessCountsWordsAsOftenAsTheyStand) {
  EXPECT_EQ(likeness("one two", "Two, one!"), 1);
  EXPECT_EQ(likeness("", " "), 1);
  EXPECT_EQ(likeness("one", ""), 0);
  EXPECT_DOUBLE_EQ(likeness("one one one", "one"), 0.5);
}

}  // namespace
}  // namespace lacuna::cli::task
