// SPDX-License-Identifier: Apache-2.0
// Means of neighbouring heads, as a call of fewer heads that scores can be made of (ProxyAttn, arXiv:2509.24745).
//   proxy p: the mean of its query heads, over keys that are the mean of their KV heads'
#pragma once

#include <cstdint>
#include <span>

#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

// How many query heads are averaged so that groups share out the heads: the largest divisor of the heads of a KV head, or
// number of whole KV heads' that divides them all, that is at most `wanted`; 0 = the query heads of a KV head.
std::int32_t heads_together(const AttentionView& x, std::int64_t wanted);

class HeadMeans final : private KeyOrder {
 public:
  // `together`: as heads_together says. Where it spans several KV heads, their mean keys are made and packed at once, in
  // kKeySumSlot and kPackSlot.
  HeadMeans(const AttentionView& x, std::int32_t together, Context& context);
  HeadMeans(const HeadMeans&) = delete;
  HeadMeans& operator=(const HeadMeans&) = delete;

  // x with a head per proxy, with their keys; of its queries only what queries() gives. Lives as long as this.
  AttentionView view();
  // Mean queries of some rows: [proxies][rows][dk], in kColumnSlot.
  const float* queries(std::span<const std::int32_t> rows) const;

 private:
  OrderedKeys ordered() override { return {packed_, 0}; }

  const AttentionView& x_;
  std::int32_t together_, kv_together_ = 1;  // query heads, KV heads of a proxy
  Context& context_;
  PackedView packed_;  // mean keys; no data: those of the call
};

}  // namespace lacuna::block
