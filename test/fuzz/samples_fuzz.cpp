// SPDX-License-Identifier: Apache-2.0
// A file of samples for compare --task, and the scores of what it asks.
#include <fmt/format.h>

#include "cli/task/sample.h"
#include "cli/task/score.h"
#include "fuzz/fuzz.h"

namespace lacuna::fuzz {

std::string samples(Bytes bytes) {
  using namespace cli::task;
  std::vector<Sample> read, again;
  std::string error;
  if (!read_jsonl(text_of(bytes), "file", 32, read, error))
    return error.starts_with("file:") ? "" : fmt::format("refused as '{}', which names no line", error);
  const std::string written = to_jsonl(read);
  if (!read_jsonl(written, "file", 32, again, error)) return "what was written is not read again: " + error;
  if (to_jsonl(again) != written) return "what was written is read as something else";
  for (const Sample& sample : read)
    for (const Turn& turn : sample.turns) {
      const double empty = score_answer(sample.scoring, turn.answers, "");
      const double right = score_answer(sample.scoring, turn.answers, right_answer(sample, turn));
      if (!(0 <= empty && empty <= 1 && 0 <= right && right <= 1)) return "a score is not within 0..1";
      if (likeness(turn.question, turn.question) != 1) return "a text is unlike itself";
    }
  return "";
}

}  // namespace lacuna::fuzz

LACUNA_FUZZ_TARGET(samples)
