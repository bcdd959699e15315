// SPDX-License-Identifier: Apache-2.0
// The specification of the four ops of side_scores.h: in double precision, or as plain arithmetic in
// single precision, by which kernels are judged.
#pragma once

#include "op/side_scores.h"

namespace lacuna::op {

// All scores of one KV head's query heads. Number: double or float.
template <class Number = double>
void page_scores_ref(const PageScores::Args& a, int kv_head);
template <class Number = double>
void label_scores_ref(const LabelScores::Args& a, int kv_head);
template <class Number = double>
void int4_scores_ref(const Int4Scores::Args& a, int kv_head);
template <class Number = double>
void int8_scores_ref(const Int8Scores::Args& a, int kv_head);

}  // namespace lacuna::op
