// SPDX-License-Identifier: Apache-2.0
// What a session has to say: what was kept, what it cost, what was lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lacuna {

struct LossStats {  // lost mass over audited rows with at least 256 visible keys
  double mean = 0, p95 = 0, max = 0;
  // With 95 % confidence the mean over the whole run, audited or not, is at most this (docs/account.md); the mean itself where
  // every row was audited, 1 where too few were to say anything.
  double upper = 0;
  std::int64_t rows = 0;
};

// Memory beside a cache, by what it holds: packed copies, and what a method had kept of the keys.
struct SideBytes {
  std::size_t packed = 0, pages = 0, int4 = 0, int8 = 0, labels = 0, pooled = 0;
  std::size_t sum() const { return packed + pages + int4 + int8 + labels + pooled; }
  SideBytes& operator+=(const SideBytes& x) {
    packed += x.packed, pages += x.pages, int4 += x.int4, int8 += x.int8, labels += x.labels, pooled += x.pooled;
    return *this;
  }
};

// Of the keys with a row's largest exact scores, 64 of them and at most a sixteenth of those it sees, the share that was kept. Mean
// over audited rows, one head of each; with 95 % confidence that of the whole run is at least `lower`.
struct RecallStats {
  double mean = 1, lower = 0;
  std::int64_t rows = 0;
};

struct PhaseReport {
  std::int64_t calls = 0;
  double allowed_pairs = 0, attended_pairs = 0;  // query-key pairs, all heads
  double kv_bytes = 0;                           // K and V read by attend
  double seconds[5] = {};                        // estimate budget attend correct account
  double contract_seconds = 0;                   // what keeping a contract took beside these
  // Of whole passes over the layers, the host's own work in them too: from a pass's first call to the end of its last.
  double pass_seconds = 0;
  LossStats lost;
  RecallStats recall;
  LossStats error;  // relative L2 error of audited rows' outputs, of a row and head at most 1
  // Calls of layers in which the model itself lets rows see only a window of keys, and which therefore stay
  // dense (Options::windowed): in none of the figures above.
  struct Windowed {
    std::int64_t calls = 0;
    double kv_bytes = 0, seconds = 0;
  } windowed;
  double audit_share() const { return pass_seconds > 0 ? seconds[4] / pass_seconds : 0.0; }  // what the audit costs
  double density() const { return allowed_pairs > 0 ? attended_pairs / allowed_pairs : 1.0; }
};

// What became of Options::max_loss or max_error (docs/account.md).
struct ContractReport {
  enum class State : std::uint8_t {
    held,    // the bound is within the limit
    open,    // the mean is, its bound is not: too few rows were audited to show it
    broken,  // the mean is not
  };
  // By the rows that were drawn, which is less than the report's figures rest on where every row is audited.
  struct Phase {
    State state = State::held;
    double mean = 0, upper = 0;
    int dense_heads = 0, heads = 0;  // (layer, query head): that the next call would leave dense; in all
    int widened_layers = 0;          // in which the method keeps more than it was asked to
  };
  double limit = 0;       // 0: no contract
  bool of_error = false;  // else of lost mass
  Phase prefill, decode;
};

// What became of Options::certify: bounds on the lost mass of decoded rows that are proved, not sampled (docs/account.md). Over
// rows with at least 256 visible keys, one per (layer, query head, decoded token).
struct CertificateReport {
  double limit = 0;  // 0: not asked for; 1: bounds are told, and nothing is kept for their sake
  std::int64_t rows = 0;
  double mean = 0, max = 0;  // of the rows' bounds
  double within = 0;         // share of the rows whose bound is within the limit; 1 without rows
  double kept_for_it = 0;    // share of the visible pairs kept for the bound's sake, beyond what the method keeps
  double seconds = 0;        // spent on proving, in no verb
};

struct Report {
  std::string method;   // canonical spec
  std::string kernel;   // of op attend, as last used for many rows
  std::string machine;  // features in words
  PhaseReport prefill, decode;  // decode = calls whose segments have one row
  int windowed_layers = 0;      // layers that stayed dense because the model's own window limits them
  ContractReport contract;
  CertificateReport certificate;
  std::string note;     // why a method went dense, last reason; or empty
};

}  // namespace lacuna
