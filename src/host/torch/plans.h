// SPDX-License-Identifier: Apache-2.0
// A plan tensor holds the words of Session::plan (engine/plan_words.h) of one sequence after the other; the words of one
// sequence alone serve a whole batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "host/torch/tensors.h"

namespace lacuna::torch_host {

using PlanParts = std::vector<std::span<const std::int32_t>>;

// The words of each sequence that the tensor has. Throws std::invalid_argument.
inline PlanParts parts_of(const Tensor& plan) {
  if (plan.scalar_type() != ScalarType::Int || plan.dim() != 1 || (plan.size(0) > 1 && plan.stride(0) != 1))
    throw std::invalid_argument("plan: need a contiguous int32 tensor of one dimension, as lacuna.plan gives it");
  std::span<const std::int32_t> left(static_cast<const std::int32_t*>(plan.data_ptr()), static_cast<std::size_t>(plan.numel()));
  PlanParts parts;
  while (!left.empty()) {
    const std::int64_t n = left.size() > 1 ? left[1] : 0;  // how many words the part's head says it has
    if (n < 3 || n > static_cast<std::int64_t>(left.size()))
      throw std::invalid_argument("plan: its " + std::to_string(plan.numel()) + " words are no plan, or were cut");
    parts.push_back(left.first(static_cast<std::size_t>(n)));
    left = left.subspan(static_cast<std::size_t>(n));
  }
  return parts;
}

// The words of each of `batch` sequences. Throws std::invalid_argument.
inline PlanParts split_plan(const Tensor& plan, std::int64_t batch) {
  PlanParts parts = parts_of(plan);
  if (parts.size() == 1) parts.resize(static_cast<std::size_t>(batch), parts.front());
  if (static_cast<std::int64_t>(parts.size()) != batch)
    throw std::invalid_argument("plan: of " + std::to_string(parts.size()) + " sequences, the batch has " + std::to_string(batch));
  return parts;
}

}  // namespace lacuna::torch_host
