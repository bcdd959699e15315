// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the current device can run.
#pragma once

#include <cuda_runtime.h>

namespace lacuna::kernel::cuda {

// 10 * major + minor of its compute capability: 90 for an H100; 0 = there is no device.
inline int capability() {
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess)
    return 10 * major + minor;
  cudaGetLastError();  // or the next launch would be blamed
  return 0;
}

}  // namespace lacuna::kernel::cuda
