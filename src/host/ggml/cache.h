// SPDX-License-Identifier: Apache-2.0
// Buffers of ours, the KV cache tensors in them, and the side copies beside those: packed tiles, and what
// the method had kept of the keys. Both live in one PackedTensor, so what holds for one holds for all.
//
// A side copy is exact where it is not DIRTY. What makes cells dirty: every write ggml makes through
// the buffer (state restore, stream copy, memset, clear), every row written before the side copy
// exists, and rotations in place. What cannot be seen is never trusted: a tensor that another backend
// writes in place is FOREIGN, and its side copy is not used again.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host/ggml/abi.h"
#include "lacuna/lacuna.h"

namespace lacuna::ggml {

// One stream (one block of cells) of a cache tensor.
struct Stream {
  std::unique_ptr<PackedTensor> packed;
  int heads = 0, dim = 0;
  std::int64_t dirty_begin = 0, dirty_end = 0;  // cells whose side copy is stale
  std::vector<std::int32_t> cell_pos;           // [cells] position of the key, -1 = unknown; keys only
  void mark(std::int64_t begin, std::int64_t end);
};

struct CacheTensor {
  std::string name;
  char* data = nullptr;
  int type = 0;
  std::int64_t row_elements = 0, cells = 0;
  std::size_t row_bytes = 0;
  bool foreign = false;
  Rope rope;  // of the keys in it, once a write has shown it
  std::vector<Stream> streams;
  // Of the current graph: the cell each row was written to, counted over all streams; and what happened.
  std::vector<std::int64_t> written;
  bool was_written = false, was_attended = false;
  std::size_t bytes() const { return row_bytes * static_cast<std::size_t>(cells) * streams.size(); }
  lacuna::Tensor raw(std::size_t stream) const;  // of a stream whose shape is known
  void mark_bytes(const char* begin, std::size_t n);
};

struct OwnBuffer {
  char* base = nullptr;
  std::size_t size = 0;
  bool all_zero = false;  // cleared to zero, and no write from outside since
  std::map<const void*, std::unique_ptr<CacheTensor>> tensors;  // by address
  CacheTensor& tensor(const Tensor& whole);                     // `whole` is no view
  void wrote(const void* begin, std::size_t n);
};

BufferType* own_buffer_type(Device* device);
bool is_cache_name(const char* name);
int layer_of(const char* name);  // -1: not a cache tensor's name

// The tensor whose memory `t` shows, and its buffer if that is ours.
const Tensor& whole_of(const Tensor& t);
OwnBuffer* own_buffer(const Tensor& t);
CacheTensor* cache_of(const Tensor& t);  // null: not a cache tensor in a buffer of ours

SideBytes side_bytes();  // of all copies alive
// Brings every copy up to date and compares it with one made anew: "" or the first difference. For
// tests; no graph may be running.
std::string verify_side();

}  // namespace lacuna::ggml
