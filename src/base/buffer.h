// SPDX-License-Identifier: Apache-2.0
// Buffer: 64-byte aligned storage that only grows, so that steady state allocates nothing.
// Contents are not kept across grow(). Owner: whoever holds the Buffer.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace lacuna {

class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  // At least `bytes` of storage; throws std::bad_alloc (turned into an Error at the edge).
  void* grow(std::size_t bytes) {
    if (bytes > bytes_) {
      std::free(data_);
      data_ = nullptr;
      bytes_ = 0;
      const std::size_t rounded = (bytes + 63) & ~std::size_t{63};
      if (rounded < bytes || !(data_ = std::aligned_alloc(64, rounded))) throw std::bad_alloc();
      bytes_ = rounded;
    }
    return data_;
  }
  template <class T>
  T* grow_as(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T) - 64) throw std::bad_alloc();
    return static_cast<T*>(grow(n * sizeof(T)));
  }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace lacuna
