// SPDX-License-Identifier: Apache-2.0
// A case: one line of text that names one problem for one op. The same line stands in cases/*.txt, on
// the command line of check and bench, and in every failure message.
//
//   attend layout=block keep=0.1 block=64 hq=32 hkv=8 nq=512 nkv=8192 d=128 kv=f16 threads=2
//   attend_grad hq=32 hkv=8 nq=2048 nkv=2048 d=128 kv=f32 threads=2
//   attend hq=32 hkv=8 nq=1 nkv=32768 d=128 kv=q8_0 v=q4_0
//   strided_scores stride=8 hq=9 hkv=3 nq=512 nkv=2048 d=64
//   int8_scores hq=9 hkv=3 nq=1 nkv=8192 d=64
//   attend_maxima block=64 hq=9 hkv=3 nq=512 nkv=8192 d=64
//   choose method=xattention chunk=512 hq=9 hkv=3 nq=8192 nkv=8192 d=64
//
// `choose` is no op: it is a method's choosing. It, int4_scores, int8_scores and attend_maxima are for bench alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lacuna/dtype.h"
#include "lacuna/result.h"

namespace lacuna::cli {

enum class Layout : std::uint8_t {
  closed,  // everything causal, or sinks and a window
  block,   // random blocks per query head, the diagonal and block 0 always among them
  tokens,  // random keys per KV head, those of the rows' own block always among them
  pages,   // the same in pages of `block` keys
};

struct Case {
  std::string op = "attend";
  // attend, attend_grad; block: attend_maxima too
  Layout layout = Layout::closed;
  double keep = 1;           // share of the allowed pairs (closed: sets the window)
  std::int64_t block = 128;  // keys per block; rows per block are the lesser of this and 128
  std::int64_t window = 0;   // keys of a closed form, own key included; 0 = by `keep`
  std::int64_t sink = 0;     // keys from the start that a closed form keeps
  std::int64_t dv = 0;       // channels of V; 0 = d
  double softcap = 0;        // 0 = none
  // strided_scores
  std::int64_t stride = 8;
  // choose
  std::string method = "xattention";  // a spec
  std::int64_t chunk = 512;           // rows of a call
  // all: the rows are the last nq of nkv positions
  std::int64_t b = 1, hq = 32, hkv = 8, nq = 512, nkv = 2048, d = 128;
  Dtype kv = Dtype::f16;
  std::optional<Dtype> v;  // attend: of V, where it is not kv
  int threads = 0;  // 0 = one per core
  std::uint64_t seed = 1;
  Precision precision = Precision::fast;
  std::string kernel, machine;  // empty = the best there is

  bool attends() const { return op == "attend" || op == "attend_grad"; }
  Dtype v_type() const { return v.value_or(kv); }
  int value_dim() const { return static_cast<int>(dv ? dv : d); }
  // The line that makes this case, without what stands at its default.
  std::string line() const;
};

// What the command line adds to every case that does not say otherwise.
struct CaseDefaults {
  std::string precision, kernel, machine, seed;
  int threads = 0;
};

// Errors name the key, the value, what is allowed and, for an unknown key, the nearest.
Result<Case> parse_case(std::string_view line, const CaseDefaults& defaults = {});

// Words of the command line: files of cases (empty lines and lines beginning with # are skipped) or
// whole lines. An error names the file and the line.
Result<std::vector<Case>> read_cases(const std::vector<std::string>& words, const CaseDefaults& defaults);

}  // namespace lacuna::cli
