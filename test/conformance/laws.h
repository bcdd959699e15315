// SPDX-License-Identifier: Apache-2.0
// The laws every method and kernel is tested against: the one table that the tests run, that cards
// name their exemptions from, and that docs/laws.md repeats (laws_test.cpp compares the two).
#pragma once

#include <string_view>

namespace lacuna::conformance {

enum class Of : unsigned char { method, kernel };

struct Law {
  Of of;
  std::string_view name, says;
};

constexpr Law kLaws[] = {
    {Of::method, "keep_all", "With a budget of everything (the card's keep_all), the result is that of dense."},
    {Of::method, "sparse", "With the card's small spec, something is left out at 512 tokens, so that the other laws can fail."},
    {Of::method, "kept", "The result is exact attention over what is visible and kept by the plan, for prefill, part calls and decode; with soft-cap, sinks, ALiBi, any cache and precision within law bound."},
    {Of::method, "causal", "Keys and values after a row's own (counted in the card's granule) change no bit of the row, selection included."},
    {Of::method, "chunks", "A prompt in chunks (multiples of the card's granule) gives the result of one shot; methods that read the prompt's end are told its length."},
    {Of::method, "repeat", "The same calls with the same seed give the same bits and the same counts, with any number of threads."},
    {Of::method, "paged", "Cells in any order, with their positions given, give the result of cells in order."},
    {Of::method, "batch", "Several sequences of different lengths in one cache and one call give the results of single calls."},
    {Of::method, "head_slice", "Some heads alone give what they give among all heads."},
    {Of::method, "residues", "Law kept holds for every residue of the length modulo 128."},
    {Of::method, "gqa", "Grouped query heads give what they give when every query head has a KV head of its own."},
    {Of::method, "params", "Every parameter outside its range is refused by its name, with the value and the range."},
    {Of::method, "sizes", "No rows, no keys, one token, fewer keys than a block and more rows than cells are legal."},
    {Of::method, "empty_rows", "A row that sees nothing gives 0 and a log-sum of -infinity, and leaves its neighbours alone."},
    {Of::method, "lost", "A full audit's lost mass lies in 0..1, is 0 but for rounding when all is kept, and no kept log-sum exceeds the exact one."},
    {Of::method, "needle", "One key that the last rows match strongly is found wherever it stands."},
    {Of::kernel, "bound", "The error against double precision is at most twice (three times with a soft-cap) that of plain arithmetic in the same number types."},
    {Of::kernel, "edges", "Nothing is written outside the rows of out, lse and state; what is asked for is written, NaN before or not."},
    {Of::kernel, "order", "Tasks in any order, on any workers, give the same bits; another number of workers stays within bound."},
    {Of::kernel, "merge", "Disjoint selections, in any order, through the resumable state or by log-sums, give the joint result."},
    {Of::kernel, "nonfinite", "NaN or infinity in q, k or v reaches the rows that see it and no other; hidden keys never matter."},
};

}  // namespace lacuna::conformance
