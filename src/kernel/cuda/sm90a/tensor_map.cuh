// SPDX-License-Identifier: Apache-2.0
// The maps by which TMA finds a box of a tensor: one for a whole [batch][heads][rows][channels], with any strides.
// What a box has beyond the tensor's end reads as zero and is never written.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "kernel/cuda/prefill.h"
#include "kernel/cuda/sm90a/shape.h"

namespace lacuna::kernel::cuda::sm90a {

// The driver's function, found through the runtime so that nothing links the driver; null = a driver without it.
inline PFN_cuTensorMapEncodeTiled_v12000 find_encoder() {
  void* f = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f)
             : nullptr;
}

inline bool encode(CUtensorMap& map, const Tensor4& t, Dtype type, int batch, int heads, int rows, int channels) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  const auto stride = [&](std::int64_t elements, int n) {  // that of a single one is never used
    return static_cast<cuuint64_t>(2 * (n > 1 ? elements : std::int64_t{8}));
  };
  const auto size = [](int n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[4] = {size(channels), size(rows), size(heads), size(batch)};
  const cuuint64_t strides[3] = {stride(t.row, rows), stride(t.head, heads), stride(t.batch, batch)};
  const cuuint32_t box[4] = {kBox, kBox, 1, 1}, steps[4] = {1, 1, 1, 1};
  const auto number = type == Dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  return encoder && encoder(&map, number, 4, t.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                            CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                            CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace lacuna::kernel::cuda::sm90a
