// SPDX-License-Identifier: Apache-2.0
// Slots of Context::scratch, by what lies in them. A method's parts run one after the other; two that
// must live at the same time have different slots.
#pragma once

namespace lacuna::block {

enum Slot : int {
  kScoreSlot,  // raw scores of an estimator, one pass at a time
  kMassSlot,   // what estimate hands to budget: [heads][row blocks][key blocks]
  kKeptSlot,   // lists before they are joined: [heads][row blocks][key blocks]
  kCountSlot,  // their lengths: [heads][row blocks]
  kWorkSlot,   // per worker
  kColumnSlot, // line sums of an estimate: [heads][keys]
  kSlashSlot,  // and [heads][distances]
  kSetSlot,    // kept blocks, a byte each: [heads][row blocks][key blocks]
  kPoolSlot,   // sums of the queries of row blocks: [heads][row blocks][dk]; sums of keys
  kKeySumSlot, // sums of the keys of key blocks: [KV heads][key blocks][dk],
  kPackSlot,   // and the same packed
  kAlikeSlot,  // self-similarity: [heads][row blocks], then [KV heads][key blocks]
  kGroupSlot,  // what query heads that share their scores have together: [groups of heads][row blocks][dk]
  kBlockMassSlot,  // the mass of a kernel's blocks, summed from finer ones in kMassSlot: [heads][row blocks][key blocks]
};

}  // namespace lacuna::block
