// SPDX-License-Identifier: Apache-2.0
// A plan of one sequence as ranges of keys, row by row: what block_lists.cpp and page_lists.cpp make lists of.
#pragma once

#include <cstdint>
#include <vector>

#include "lacuna/block_lists.h"
#include "method/method.h"

namespace lacuna {

class KeptRows {
 public:
  // `plan` must have passed check_plan(). Both must outlive this.
  KeptRows(const Plan& plan, const Allowed& allowed, std::int32_t sequence);

  bool dense() const { return !mask_ && is_dense_; }
  std::int32_t lists() const { return lists_; }  // 1, or as many as the plan's lists or routes
  // Keys [0, end) of row i that the diagonal allows; all keys beside a mask.
  std::int64_t seen(std::int32_t row) const;
  // The first row after `row`, and at most `end`, that may keep something else in this list.
  std::int32_t next(std::int32_t list, std::int32_t row, std::int32_t end) const;
  // What the row keeps, and a mask allows: ascending ranges within [0, keys) that do not touch.
  void ranges(std::int32_t list, std::int32_t row, std::vector<Range>& to) const;

 private:
  const Pattern* pattern(std::int32_t list) const;  // null: nothing
  std::int64_t own(std::int32_t row) const;

  const Plan& plan_;
  const Allowed& allowed_;
  const std::uint8_t* mask_;
  std::int32_t lists_ = 1;
  bool is_dense_;
};

// Lists of lists[i] sequences are one for every `most` / lists[i] of the greatest; an error where that does not divide.
Result<std::int32_t> common_lists(const std::vector<KeptRows>& sequences);

// Fills the pages of `to`, where the call has few enough rows that all keep the same.
void page_lists(const std::vector<KeptRows>& sequences, const Allowed& allowed, BlockLists& to);

}  // namespace lacuna
