// SPDX-License-Identifier: Apache-2.0
// A method: one small, immutable object that looks at a call and answers with a Plan.
//
// To add one: copy examples/skeleton/method.cpp to src/method/<family>/<slug>.cpp, write its test
// beside it, add one line to list.inc. docs/add-a-method.md walks through it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/packed.h"
#include "kv/side.h"
#include "lacuna/result.h"
#include "method/params.h"
#include "op/context.h"
#include "op/side_scores.h"
#include "pattern/pattern.h"
#include "pattern/visibility.h"

namespace lacuna {

// How scores become weights. A kernel trait with its row statistic; values join as methods need them.
enum class Weigh : std::uint8_t { softmax };

// Which way a query head goes in this call.
enum class Route : std::uint8_t {
  pattern,  // the plan's pattern
  full,     // everything the model allows
};

// What one call of one layer shall do, for one sequence. Made by a method, executed by the engine.
struct Plan {
  Pattern pattern = Dense{};
  std::vector<Route> routes;  // per query head; empty = every head takes `pattern`
  Weigh weigh = Weigh::softmax;
  std::string why;            // for explain and reports: why this and not something sparser
};

inline Plan dense_plan(std::string why) { return {.pattern = Dense{}, .routes = {}, .weigh = Weigh::softmax, .why = std::move(why)}; }

enum class Phase : std::uint8_t { prefill, decode };

// What a method may look at: the rows of one sequence in one call of one layer. Keys are numbered by
// position (pattern/visibility.h); row i's own key is first_key + i.
struct AttentionView {
  int layer = 0;
  int n_layers = 0;  // 0 = the host does not know yet
  Phase phase = Phase::prefill;
  Grid grid;
  int hkv = 1, dk = 0;
  float scale = 1.0f;
  std::int64_t prompt_tokens = -1;  // the prompt's whole length if announced, else -1

  const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
  std::int64_t q_head = 0, q_row = 0;
  PackedView packed_k;          // key j lies in cell first_cell + j
  std::int64_t first_cell = 0;  // a multiple of 16

  // What side() asked for, in order of CELLS: of all sequences of the cache, in any order. A kind without
  // data does not fit this cache. cells->key(cell) and cells->cell(key) translate, cell < n_cells.
  SideView side;
  std::int64_t n_cells = 0;
  const Segment* cells = nullptr;
  const std::uint32_t* visible = nullptr;  // row i: bit b of word i * visible_row + t = cell 32 t + b
  std::int64_t visible_row = 0;            // tiles_of(n_cells)
  // Fills the part of an op on side data that this view knows: all but the scores and the data.
  void ask(op::SideQuery& a) const;
};

// The laws of docs/laws.md that a method does not obey, each with its reason.
struct Exemption {
  std::string_view law, reason;
};

struct Card {
  std::string_view slug = {}, title = {}, paper = {}, family = {}, summary = {};
  std::string_view notes = {};                   // choices made where the source is unclear, limits
  bool reads_prompt_end = false;                 // a chunk's end stands for it unless announced
  bool shares_list_in_group = false;             // one list per KV head's group of query heads
  std::string_view selects = "prefix";           // prefix | global: which keys a row's selection sees
  // For the laws of docs/laws.md. Specs are whole: "slug:key=value".
  std::string_view keep_all = {};                // spec that leaves nothing out, at any length
  std::string_view small = {};                   // spec that leaves something out at 512 tokens
  std::int64_t granule = 1;                      // rows, counted from a call's first, that decide together
  std::span<const Exemption> exemptions = {};
};

class Method {
 public:
  virtual ~Method() = default;
  virtual const Card& card() const = 0;
  // Every parameter, told once: default, parsing, ranges, help, docs and JSON come from it.
  virtual void params(ParamVisitor& v) = 0;
  // Named sets of parameters. "auto" (the default) scales constants with the length; "paper" has the
  // published ones.
  virtual Status preset(std::string_view name);
  // Rules across parameters; each parameter's own range is already checked.
  virtual Status check() const { return {}; }

  virtual Result<Plan> plan(const AttentionView& x, Context& context) const = 0;
  // What shall be kept beside the keys of a layer. Always the same for a method whose parameters are set.
  virtual SideSpec side(int layer) const;
};

struct MethodEntry {
  const Card* card = nullptr;
  std::unique_ptr<Method> (*make)() = nullptr;
};

}  // namespace lacuna

// Defines the entry that list.inc names: LACUNA_METHOD(slug, Class).
#define LACUNA_METHOD(slug, Class)                                            \
  const ::lacuna::MethodEntry& method_entry_##slug() {                        \
    static const Class instance;                                              \
    static const ::lacuna::MethodEntry entry{&instance.card(), [] {           \
      return std::unique_ptr<::lacuna::Method>(std::make_unique<Class>());    \
    }};                                                                       \
    return entry;                                                             \
  }
