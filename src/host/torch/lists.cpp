// SPDX-License-Identifier: Apache-2.0
// Plans as lists of blocks and pages, for kernels that are not the library's own to call: lacuna/_lists.py moves them to a GPU.
#include <algorithm>
#include <stdexcept>

#include "host/torch/plans.h"
#include "host/torch/sessions.h"
#include "lacuna/block_lists.h"

namespace lacuna::torch_host {
namespace {

// Numbers at the front of the tensor; lists begin at multiples of 4, for loads of 16 bytes. lacuna/_lists.py reads the same.
enum Head : std::size_t {
  kDense, kBlockQ, kBlockK, kBatches, kLists, kMasks, kCells, kMost, kRowPtr, kColumns, kBits, kWords, kCounts, kPages, kEnd, kHead = 16
};

// Lists one after the other in one tensor: one copy moves them all.
class Packer {
 public:
  // Where a list of n numbers begins.
  std::int32_t place(std::size_t n) {
    const std::size_t at = size_;
    size_ = (size_ + n + 3) / 4 * 4;
    if (size_ > 0x7fffffff) throw std::runtime_error("lacuna: plan: its lists have more than 2^31 numbers; keep whole blocks, or fewer lists");
    return static_cast<std::int32_t>(at);
  }
  std::int64_t size() const { return static_cast<std::int64_t>(size_); }

 private:
  std::size_t size_ = kHead;
};

Tensor block_lists(Tensor words, std::optional<Tensor> mask, std::int64_t rows, std::int64_t keys, bool causal) {
  Allowed allowed;
  if (rows < 0 || rows > 0x7fffffff) throw std::invalid_argument("plan: " + std::to_string(rows) + " rows, need 0 to 2^31 - 1");
  allowed.rows = static_cast<std::int32_t>(rows), allowed.keys = keys, allowed.causal = causal;
  if (mask) {
    check_shape("mask", *mask, {-1, rows, keys});
    if (mask->scalar_type() != ScalarType::Bool || !mask->is_contiguous()) throw std::invalid_argument("mask: need a contiguous bool tensor");
    allowed.masks = static_cast<std::int32_t>(mask->size(0));
    allowed.mask = static_cast<const std::uint8_t*>(mask->data_ptr());
  }
  const auto made = lacuna::block_lists(parts_of(words), allowed);
  if (!made.ok()) {
    if (made.error().code == ErrorCode::unsupported) throw std::runtime_error("lacuna: " + made.error().what);
    throw std::invalid_argument(made.error().what);
  }
  const BlockLists& x = made.value();
  Packer at;
  const std::int32_t masks = static_cast<std::int32_t>(x.words.size()) / (x.block_q * x.block_k / 32);
  std::int32_t head[kHead] = {x.dense, x.block_q, x.block_k, x.batches, x.lists, masks, x.cells, x.most};
  head[kRowPtr] = at.place(x.row_ptr.size());
  head[kColumns] = at.place(x.columns.size());
  head[kBits] = at.place(x.bits.size());
  head[kWords] = at.place(x.words.size());
  head[kCounts] = at.place(x.counts.size());
  head[kPages] = at.place(x.pages.size());
  head[kEnd] = static_cast<std::int32_t>(x.columns.size());
  const std::int64_t n = at.size();
  Tensor out = torch::stable::new_empty(words, {&n, 1}, ScalarType::Int);
  auto* to = static_cast<std::int32_t*>(out.data_ptr());
  std::fill(to, to + n, 0);
  std::copy(std::begin(head), std::end(head), to);
  std::copy(x.row_ptr.begin(), x.row_ptr.end(), to + head[kRowPtr]);
  std::copy(x.columns.begin(), x.columns.end(), to + head[kColumns]);
  std::copy(x.bits.begin(), x.bits.end(), to + head[kBits]);
  std::copy(x.words.begin(), x.words.end(), reinterpret_cast<std::uint32_t*>(to) + head[kWords]);
  std::copy(x.counts.begin(), x.counts.end(), to + head[kCounts]);
  std::copy(x.pages.begin(), x.pages.end(), to + head[kPages]);
  return out;
}

}  // namespace
}  // namespace lacuna::torch_host

// The words of what a method of closed form keeps in calls of a shape (lacuna/block_lists.h), in this thread's memory until its
// next call. Returns how many there are; lacuna_torch_error() has the reason of -1 (a bad value) and -2 (the method looks at keys).
LACUNA_TORCH_API std::int64_t lacuna_torch_plan_of_shape(const char* options, int layer, int heads, int kv_heads, int rows, std::int64_t keys,
                                                         int head_dim, int causal, const std::int32_t** words) {
  static thread_local std::vector<std::int32_t> kept;
  try {
    auto made = lacuna::plan_of_shape(options ? options : "", {layer, heads, kv_heads, rows, keys, head_dim, causal != 0});
    if (made.ok()) {
      kept = std::move(made.value());
      *words = kept.data();
      return static_cast<std::int64_t>(kept.size());
    }
    lacuna::torch_host::keep_error(made.error().what);
    return made.error().code == lacuna::ErrorCode::unsupported ? -2 : -1;
  } catch (const std::exception& e) {
    lacuna::torch_host::keep_error(e.what());
  }
  return -1;
}

STABLE_TORCH_LIBRARY_FRAGMENT(lacuna, m) { m.def("_block_lists(Tensor words, Tensor? mask, int rows, int keys, bool causal) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(lacuna, CPU, m) { m.impl("_block_lists", TORCH_BOX(&lacuna::torch_host::block_lists)); }
