// SPDX-License-Identifier: Apache-2.0
// Lacuna: sparse attention for transformers that says what it left out. The one include.
//
//   lacuna::Options options;
//   options.method = "xattention:stride=8";
//   auto session = lacuna::Session::open(options);             // Result<unique_ptr<Session>>
//   lacuna::AttendCall call;  call.q = ...; call.k = ...;      // [B, H, N, D] views
//   if (auto s = session.value()->attend(call); !s.ok()) puts(s.error().what.c_str());
//   puts(session.value()->report_json().c_str());
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lacuna/dtype.h"
#include "lacuna/mask.h"
#include "lacuna/parallel.h"
#include "lacuna/report.h"
#include "lacuna/result.h"
#include "lacuna/rope.h"
#include "lacuna/tensor.h"

namespace lacuna {

const char* version();

enum class Audit : std::uint8_t {
  off,
  sample,  // a few rows per layer and call: under 2 % of a run
  full,    // every row: costs a dense pass
};

struct Options {
  std::string method = "dense";  // slug:key=value[+wrapper:key=value]
  Precision precision = Precision::fast;
  Audit audit = Audit::off;
  // A contract: the run's mean lost mass, or mean output error, with its bound, shall not pass this; 0 = none, else below 1, and
  // not both. Heads stay dense where the method would lose too much (docs/account.md). Turns audit on where it is off.
  double max_loss = 0, max_error = 0;
  // A certificate: no decoded row shall lose more than this share of its mass in any head, proved from bounds on the keys' scores
  // (docs/account.md). Rows keep more than their method would until it holds. 1 = only tell the bounds; 0 = none, which is also all
  // that goes together with max_loss and max_error.
  double certify = 0;
  // Layers in which the model lets rows see only a window of keys: false = they stay dense, and the report
  // counts them apart; true = the method works there too.
  bool windowed = false;
  bool patterns = false;         // keep pictures of what is kept for report_json(): densities of heads, maps of audited rows
  bool calibrate = false;        // run dense and feed the method's calibrator (lacuna calibrate)
  std::uint64_t seed = 1;        // of the audit's choice of rows
  std::string kernel;            // force one kernel of op attend, one for many rows; empty = the best that fits
  std::string machine;           // pretend to be less: "none", "avx2", "avx512", "avx512bf16"; empty = all
  int threads = 0;               // of the default pool; 0 = one per usable core
  ParallelFor* parallel = nullptr;  // a host's own threads instead; must outlive the session
};

// Options from one line of text, for hosts that have nothing but a string:
//   "SPEC precision=fast|high audit=off|sample|full max_loss=P max_error=P certify=P seed=N kernel=NAME machine=NAME threads=N
//    windowed=dense|sparse patterns=0|1 calibrate=0|1"   P: a share, 0.01 or 1%; certify=100% tells the bounds and keeps
//    nothing for them; instead of SPEC: profile=FILE, with the method that the profile is for
// in any order, all of it optional. An unknown word is an error that names the nearest, `others`
// included: names of settings that the host takes out itself.
Result<Options> parse_options(std::string_view text, const std::vector<std::string>& others = {});

// What a session's method wants kept beside the keys of a layer. A host hands it on and need not know
// what it says; null = nothing.
struct SideSpec;
using SideRequest = std::shared_ptr<const SideSpec>;
SideRequest every_side_kind();  // for tests of a host: all kinds at once, whatever the method

// A copy of one layer's K or V in the order kernels read (bf16 or f16 tiles). A host that owns the
// cache keeps one beside each cache tensor and calls write() where cells change, so that no call has
// to pack again. Beside a quantised tensor, which is to be small, only what `side` asks for is kept:
// few rows read it where it lies, many pack it for their call. Not thread safe against a running attend().
class PackedTensor {
 public:
  enum class Role : std::uint8_t { key, value };
  // cells x heads x dim, all zeros; precision, machine and kernel as in the session's Options. Throws
  // std::bad_alloc.
  PackedTensor(Role role, Dtype dtype, std::int64_t cells, int heads, int dim, Precision precision,
               const std::string& machine = {}, const std::string& kernel = {}, const SideRequest& side = {});
  ~PackedTensor();
  PackedTensor(const PackedTensor&) = delete;
  PackedTensor& operator=(const PackedTensor&) = delete;
  // Copies cells [first, first + n) of the raw cache tensor ([1, H, C, D], all of it: side data also
  // reads the neighbours of these cells).
  void write(const Tensor& raw, std::int64_t first, std::int64_t n, ParallelFor* parallel = nullptr);
  // The same for the listed cells. A cell out of range is refused by name, and nothing is written.
  Status write_cells(const Tensor& raw, const std::int64_t* cells, std::int64_t n);
  void clear();
  std::size_t bytes() const;
  SideBytes bytes_by_kind() const;
  // Compares everything kept with a copy made anew: "" or the first difference. For tests; slow.
  std::string verify(const Tensor& raw) const;

 private:
  friend class Session;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One attention call of one layer. Batch 1 per call; rows of several sequences may share a call.
struct AttendCall {
  int layer = 0;
  Tensor q;                       // [1, Hq, Nq, Dk]  f32
  Tensor k;                       // [1, Hkv, C, Dk]  any Dtype; C cells
  Tensor v;                       // [1, Hkv, C, Dv]  the same type as k, or any if one of them is quantised
  Tensor out;                     // [1, Hq, Nq, Dv]  f32, written
  float* lse = nullptr;           // [Hq, Nq], written if set
  // [Hq, Nq], written if set: with Options::certify the most that a row can have lost, 0 where nothing is left out and 1 where
  // nothing is proved (prompts that are not dense). Without it untouched.
  float* lost_at_most = nullptr;
  float scale = 0.0f;             // 0 = 1 / sqrt(Dk)
  float softcap = 0.0f;           // 0 = none
  const float* sinks = nullptr;   // [Hq] logits of attention sinks, or null
  Mask mask;                      // data == null: causal, last row aligned with last cell
  const float* slopes = nullptr;  // [Hq] factor of the mask's finite values (ALiBi); null = 1
  const PackedTensor* packed_k = nullptr;  // side copies kept by the host, or null: packed per call
  const PackedTensor* packed_v = nullptr;
  Rope rope;                      // how q and k are rotated, if known: a profile is held against it
  bool counted = true;            // false: a warm-up; the report ignores it
  // What to keep, instead of what the method would: words of Session::plan() or a host's own in that form
  // (engine/plan_words.h), checked whole before use. Null: the method decides.
  const std::int32_t* plan = nullptr;
  std::int64_t plan_words = 0;
  // Written if set: a number of what was kept; equal plans have equal numbers.
  std::uint64_t* plan_number = nullptr;
};

// The gradients of an attend() call: `forward` as that call had it, its out and lse as it left them. Null data: not
// asked for. Refused: calls with an additive mask, quantised K or V, and plans whose kernel leaves out more than they
// say (pv_skip). A selection is a constant: what a method looked at to choose gets no gradient.
struct AttendGradCall {
  AttendCall forward;             // lse must be set; plan_number, if set, is read: the plan made again must have it
  Tensor d_out;                   // [1, Hq, Nq, Dv] f32
  const float* d_lse = nullptr;   // [Hq, Nq]; null = 0
  Tensor d_q;                     // [1, Hq, Nq, Dk] f32, written whole
  Tensor d_k;                     // [1, Hkv, C, Dk] f32, written whole
  Tensor d_v;                     // [1, Hkv, C, Dv] f32, written whole
  float* d_sinks = nullptr;       // [Hq], written; needs forward.sinks
};

class Session {
 public:
  static Result<std::unique_ptr<Session>> open(const Options& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Errors leave `out` untouched or partly written, never memory beyond it.
  Status attend(const AttendCall& call);
  // What the method would keep in this call (`out` and `lse` are not looked at), for AttendCall::plan of this call or of
  // others of its shape and mask. Not for what decides call by call: auto, contracts, calibration.
  Result<std::vector<std::int32_t>> plan(const AttendCall& call);
  // Makes the plan again where the call has none.
  Status attend_grad(const AttendGradCall& call);
  // A new graph begins: masks may have changed. Without it every call reads its mask anew.
  void new_graph();
  // How many layers the model has and how long the prompt will be, for methods that ask; -1 unknown.
  void announce(int n_layers, std::int64_t prompt_tokens);

  // Why this session leaves nothing out any more: a profile of its method is of another model than the
  // calls. Empty: none is, as far as the calls so far show.
  const std::string& unfit() const;

  // For Options::calibrate. The state so far as JSON, for a later session to go on from; and what was
  // found, {"model": as the calls showed it, "params", "data"}, or what is missing.
  Result<std::string> calibration() const;
  Status load_calibration(std::string_view text);
  Result<std::string> finish_calibration() const;
  // What the method wants kept beside the keys of a layer, for the PackedTensor of the host's cache.
  SideRequest side(int layer) const;

  // Bytes of side data that the session holds itself (scratch, per-call packing).
  std::size_t own_bytes() const;
  Report report() const;
  std::string report_json() const;
  void reset_report();

  struct Impl;

 private:
  Session();
  std::unique_ptr<Impl> impl_;
};

}  // namespace lacuna
