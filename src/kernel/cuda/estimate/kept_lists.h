// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Kept blocks as bits become block lists: bits[list][row][words], counts[list][row] to row_ptr and columns of
// kernel/cuda/prefill.h. The order of columns is ascending.
#pragma once

#include <cstdint>

namespace lacuna::kernel::cuda {

struct KeptLists {
  std::int32_t lists = 0, rows = 0, words = 0;  // words: of a row, 32 blocks each
  const std::uint32_t* bits = nullptr;
  const std::int32_t* counts = nullptr;  // of a row's bits
  std::int32_t* row_ptr = nullptr;       // [lists][rows + 1]
  std::int32_t* columns = nullptr;
};

// Starts the kernel on `stream`; null = started, else CUDA's words.
const char* write_lists(const KeptLists& a, void* stream);

}  // namespace lacuna::kernel::cuda
