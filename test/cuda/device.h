// SPDX-License-Identifier: Apache-2.0
// Arrays in the device's memory for tests and benches: copied there, fetched back, freed at the end.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace lacuna::test {

// A test that cannot use its device has nothing more to say.
inline void must(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n) : n_(n) { must(cudaMalloc(&data_, (n ? n : 1) * sizeof(T))); }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) { set(from); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void set(const std::vector<T>& from) { must(cudaMemcpy(data_, from.data(), n_ * sizeof(T), cudaMemcpyHostToDevice)); }
  std::vector<T> get(std::size_t first, std::size_t count) const {
    std::vector<T> to(count);
    must(cudaMemcpy(to.data(), data_ + first, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
  std::vector<T> get() const { return get(0, n_); }
  T* data() const { return data_; }
  std::size_t size() const { return n_; }

 private:
  T* data_ = nullptr;
  std::size_t n_;
};

}  // namespace lacuna::test
