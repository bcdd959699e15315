// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/cache.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "host/ggml/api.h"
#include "host/ggml/types.h"

namespace lacuna::ggml {
namespace {

constexpr std::size_t kAlign = 64;

std::mutex buffers_mutex;
std::set<OwnBuffer*> buffers;

OwnBuffer& inside(Buffer* b) { return *static_cast<OwnBuffer*>(b->context); }

void free_buffer(Buffer* b) {
  OwnBuffer* own = &inside(b);
  {
    const std::lock_guard lock(buffers_mutex);
    buffers.erase(own);
  }
  std::free(own->base);
  delete own;
}

void* get_base(Buffer* b) { return inside(b).base; }

void memset_tensor(Buffer* b, Tensor* t, std::uint8_t value, std::size_t offset, std::size_t size) {
  char* to = static_cast<char*>(t->data) + offset;
  std::memset(to, value, size);
  inside(b).wrote(to, size);
}

void set_tensor(Buffer* b, Tensor* t, const void* data, std::size_t offset, std::size_t size) {
  char* to = static_cast<char*>(t->data) + offset;
  std::memcpy(to, data, size);
  inside(b).wrote(to, size);
}

void get_tensor(Buffer*, const Tensor* t, void* data, std::size_t offset, std::size_t size) {
  std::memcpy(data, static_cast<const char*>(t->data) + offset, size);
}

std::size_t bytes_of(const Tensor& t) {  // of a contiguous tensor
  return t.nb[3] * static_cast<std::size_t>(t.ne[3]);
}

bool cpy_tensor(Buffer* b, const Tensor* from, Tensor* to) {
  if (!from->buffer || !api().buft_is_host(from->buffer->type)) return false;
  // ggml has checked that both have one layout; views with gaps go through set_tensor instead.
  if (std::memcmp(from->nb, to->nb, sizeof to->nb) != 0) return false;
  for (int i = 1; i < 4; ++i)
    if (to->nb[i] != to->nb[i - 1] * static_cast<std::size_t>(to->ne[i - 1])) return false;
  std::memmove(to->data, from->data, bytes_of(*to));
  inside(b).wrote(to->data, bytes_of(*to));
  return true;
}

void clear(Buffer* b, std::uint8_t value) {
  OwnBuffer& own = inside(b);
  std::memset(own.base, value, own.size);
  own.wrote(own.base, own.size);
  if (value != 0) return;
  own.all_zero = true;
  for (auto& [data, tensor] : own.tensors)
    for (auto& s : tensor->streams) {
      if (s.packed) s.packed->clear();
      s.dirty_begin = s.dirty_end = 0;
    }
}

Buffer* alloc_buffer(BufferType* type, std::size_t size) {
  auto own = std::make_unique<OwnBuffer>();
  own->size = size;
  own->base = static_cast<char*>(std::aligned_alloc(kAlign, (std::max<std::size_t>(size, 1) + kAlign - 1) / kAlign * kAlign));
  if (!own->base) {
    std::fprintf(stderr, "lacuna: no memory for a buffer of %zu MiB; use a smaller context (-c)\n", size >> 20);
    return nullptr;
  }
  BufferCalls calls{};
  calls.free_buffer = free_buffer;
  calls.get_base = get_base;
  calls.memset_tensor = memset_tensor;
  calls.set_tensor = set_tensor;
  calls.get_tensor = get_tensor;
  calls.cpy_tensor = cpy_tensor;
  calls.clear = clear;
  {
    const std::lock_guard lock(buffers_mutex);
    buffers.insert(own.get());
  }
  return api().buffer_init(type, calls, own.release(), size);
}

}  // namespace

void Stream::mark(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  if (dirty_begin == dirty_end) {
    dirty_begin = begin;
    dirty_end = end;
  } else {
    dirty_begin = std::min(dirty_begin, begin);
    dirty_end = std::max(dirty_end, end);
  }
}

void CacheTensor::mark_bytes(const char* begin, std::size_t n) {
  const char* end = std::min(begin + n, const_cast<const char*>(data) + bytes());
  begin = std::max(begin, const_cast<const char*>(data));
  if (begin >= end) return;
  const auto first = (begin - data) / static_cast<std::ptrdiff_t>(row_bytes);
  const auto last = (end - data + static_cast<std::ptrdiff_t>(row_bytes) - 1) / static_cast<std::ptrdiff_t>(row_bytes);
  for (std::size_t s = 0; s < streams.size(); ++s) {
    const std::int64_t base = static_cast<std::int64_t>(s) * cells;
    const std::int64_t a = std::max<std::int64_t>(first - base, 0), b = std::min<std::int64_t>(last - base, cells);
    if (a >= b) continue;
    streams[s].mark(a, b);
    if (!streams[s].cell_pos.empty())
      std::fill(streams[s].cell_pos.begin() + a, streams[s].cell_pos.begin() + b, -1);
  }
}

lacuna::Tensor CacheTensor::raw(std::size_t stream) const {
  const Stream& s = streams[stream];
  lacuna::Tensor t = token_major(data + stream * static_cast<std::size_t>(cells) * row_bytes, dtype_of(type), 1, s.heads, cells, s.dim);
  t.stride[2] = elements_in(type, row_bytes);
  return t;
}

CacheTensor& OwnBuffer::tensor(const Tensor& whole) {
  auto& slot = tensors[whole.data];
  if (slot) return *slot;
  slot = std::make_unique<CacheTensor>();
  slot->name = whole.name;
  slot->data = static_cast<char*>(whole.data);
  slot->type = whole.type;
  slot->row_elements = whole.ne[0];
  slot->cells = whole.ne[1];
  slot->row_bytes = whole.nb[1];
  slot->streams.resize(static_cast<std::size_t>(whole.ne[2]));
  for (auto& s : slot->streams) s.mark(0, all_zero ? 0 : slot->cells);
  return *slot;
}

void OwnBuffer::wrote(const void* begin, std::size_t n) {
  all_zero = false;
  for (auto& [data, t] : tensors) t->mark_bytes(static_cast<const char*>(begin), n);
}

BufferType* own_buffer_type(Device* device) {
  static BufferType type{};
  type.calls.get_name = [](BufferType*) { return "Lacuna"; };
  type.calls.alloc_buffer = alloc_buffer;
  type.calls.get_alignment = [](BufferType*) { return kAlign; };
  type.calls.is_host = [](BufferType*) { return true; };
  type.device = device;
  return &type;
}

// "cache_k_l3", "cache_v_l3", or with a tag after "cache_".
int layer_of(const char* name) {
  if (std::strncmp(name, "cache_", 6) != 0) return -1;
  const char* l = std::strstr(name + 6, "k_l");
  if (!l) l = std::strstr(name + 6, "v_l");
  if (!l || l[3] < '0' || l[3] > '9') return -1;
  int layer = 0;  // by hand: asked several times per node of every graph
  for (const char* digit = l + 3; *digit >= '0' && *digit <= '9' && layer < 100000; ++digit) layer = 10 * layer + (*digit - '0');
  return layer;
}

bool is_cache_name(const char* name) { return layer_of(name) >= 0; }

const Tensor& whole_of(const Tensor& t) { return t.view_src ? *t.view_src : t; }

OwnBuffer* own_buffer(const Tensor& t) {
  const Tensor& whole = whole_of(t);
  if (!whole.buffer || !whole.data || whole.buffer->type->calls.alloc_buffer != alloc_buffer) return nullptr;
  OwnBuffer* own = static_cast<OwnBuffer*>(whole.buffer->context);
  return own;
}

CacheTensor* cache_of(const Tensor& t) {
  const Tensor& whole = whole_of(t);
  if (!taken(whole.type) || whole.ne[3] != 1 || !is_cache_name(whole.name)) return nullptr;
  OwnBuffer* own = own_buffer(whole);
  return own ? &own->tensor(whole) : nullptr;
}

SideBytes side_bytes() {
  const std::lock_guard lock(buffers_mutex);
  SideBytes sum;
  for (const auto* b : buffers)
    for (const auto& [data, t] : b->tensors)
      for (const auto& s : t->streams)
        if (s.packed) sum += s.packed->bytes_by_kind();
  return sum;
}

std::string verify_side() {
  const std::lock_guard lock(buffers_mutex);
  for (const auto* b : buffers)
    for (const auto& [data, t] : b->tensors)
      for (std::size_t i = 0; i < t->streams.size() && !t->foreign; ++i) {
        Stream& s = t->streams[i];
        if (!s.packed) continue;
        s.packed->write(t->raw(i), s.dirty_begin, s.dirty_end - s.dirty_begin);
        s.dirty_begin = s.dirty_end = 0;
        if (const std::string wrong = s.packed->verify(t->raw(i)); !wrong.empty())
          return t->name + ", stream " + std::to_string(i) + ": " + wrong;
      }
  return "";
}

}  // namespace lacuna::ggml
