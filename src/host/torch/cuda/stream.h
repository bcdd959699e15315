// SPDX-License-Identifier: Apache-2.0
// PyTorch's current stream of a device. The library is compiled beside any PyTorch, also one for CPUs, whose headers do
// not name the function and whose libraries do not have it: it is found in the libtorch_cuda that runs.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>

namespace lacuna::torch_host {

// A cudaStream_t. Throws std::runtime_error where the running PyTorch has no CUDA.
inline void* current_stream(std::int32_t device) {
  using Function = std::int32_t (*)(std::int32_t device, void** stream);  // 0 = good
  static const Function found = [] {
    // RTLD_NOLOAD: the one in use, or none. It stays loaded, so its handle is never given back.
    void* torch = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Function>(torch ? dlsym(torch, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  void* stream = nullptr;
  if (!found || found(device, &stream) != 0)
    throw std::runtime_error("lacuna: this PyTorch tells no current CUDA stream: need one built for CUDA, 2.9 or newer");
  return stream;
}

}  // namespace lacuna::torch_host
