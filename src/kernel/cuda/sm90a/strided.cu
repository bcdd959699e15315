// SPDX-License-Identifier: Apache-2.0
// The strided product of estimate/strided.h on Hopper. A step of a tile is 64 channels of one of the S rows of every
// square: TMA takes rows S apart, so nothing is gathered. One warp loads 128 x 64 queries and 256 x 64 keys a step,
// four steps ahead, into the next tile as well; two warpgroups multiply, 64 rows each, and turn a tile into cells.
//
// Rows of the tensor beyond its end count as zeros. Of the S rows of a square, the first ones may be there when the
// last ones are not: two maps for each tensor, of as many squares as have an early row, and a late one.
#include <cuda_runtime.h>
#include <lacuna_wgmma.h>

#include <algorithm>
#include <cstdint>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/estimate/cells.cuh"
#include "kernel/cuda/sm90a/shared.cuh"
#include "kernel/cuda/sm90a/tensor_map.cuh"

namespace lacuna::kernel::cuda::sm90a {
namespace {

constexpr int kStages = 4, kThreads = 384;
constexpr int kQueryBytes = kStridedRows * 128, kKeyBytes = kStridedColumns * 128, kStageBytes = kQueryBytes + kKeyBytes;
constexpr int kSharedBytes = kStages * kStageBytes + 2048;

struct Maps {
  CUtensorMap early, late;
  std::int32_t rest;  // rows of a square with as many squares as `early` has
};
struct Strided {
  Maps q, k;
  StridedGrid grid;
  float scale_log2;
  std::int32_t panels, hkv, first_head;
  std::int64_t tiles;
  std::uint16_t* cells;
  float* maxima;
};

struct Ring {
  Barrier full[kStages], empty[kStages];
};

__device__ __forceinline__ void load_tiles(const Strided& c, unsigned char* stages, Ring& ring) {
  Turn<kStages> turn;
  for (std::int64_t number = blockIdx.x; number < c.tiles; number += gridDim.x) {
    const StridedTile t = c.grid.tile_at(number);
    const int kv_head = c.first_head + t.head / c.grid.group, batch = kv_head / c.hkv;
    const int head = c.first_head * c.grid.group + t.head - batch * c.grid.hq;
    for (int s = 0; s < c.grid.stride; ++s) {
      const int from_end = c.grid.stride - 1 - s;
      const CUtensorMap& q = from_end < c.q.rest ? c.q.early : c.q.late;
      const CUtensorMap& k = s < c.k.rest ? c.k.early : c.k.late;
      for (int panel = 0; panel < c.panels; ++panel, turn.next()) {
        unsigned char* to = stages + turn.index * kStageBytes;
        Barrier& full = ring.full[turn.index];
        ring.empty[turn.index].wait(turn.parity ^ 1);
        full.arrive_and_expect(kStageBytes);
        load_box(to, q, full, panel * kBox, t.row * kStridedRows, from_end, head, batch);
        load_box(to + kQueryBytes, k, full, panel * kBox, t.column * kStridedColumns, s, kv_head - batch * c.hkv, batch);
      }
    }
  }
}

template <class T, int kCell>
__device__ __forceinline__ void multiply_tiles(const Strided& c, unsigned char* stages, Ring& ring, int group, int thread) {
  Turn<kStages> turn;
  const int steps = c.grid.stride * c.panels, lane = thread % 32;
  const std::uint32_t at = shared_address(stages);
  for (std::int64_t number = blockIdx.x; number < c.tiles; number += gridDim.x) {
    float s[128];
    int before = 0;
    for (int step = 0; step < steps; ++step) {
      std::uint32_t q = at + turn.index * kStageBytes + group * 64 * 128;
      const std::uint32_t k = at + turn.index * kStageBytes + kQueryBytes;
      ring.full[turn.index].wait(turn.parity);
      products_begin();
#pragma unroll
      for (int part = 0; part < 4; ++part)
        Wgmma<kStridedColumns, T>::scores(s, operand(q + part * 32), operand(k + part * 32), step > 0 || part > 0);
      products_commit();
      if (step > 0) {
        products_wait<1>();
        if (lane == 0) ring.empty[before].arrive();
      }
      before = turn.index;
      turn.next();
    }
    products_wait<0>();
    pin(s);
    if (lane == 0) ring.empty[before].arrive();
    const StridedTile t = c.grid.tile_at(number);
    const std::int64_t place = c.grid.place(t) * kStridedRows;
    const int row = group * 64 + thread / 32 * 16 + lane / 4, from = t.column * kStridedColumns;
    store_cells<kCell>(s, c.scale_log2, row, c.grid.first + t.row * kStridedRows + row + 1 - from,
                       c.grid.columns - from, lane, c.cells + place * (kStridedColumns / kCell), c.maxima + place);
  }
}

template <class T, int kCell>
__global__ void __launch_bounds__(kThreads, 1) strided_tiles(const __grid_constant__ Strided c) {
  extern __shared__ unsigned char memory[];
  __shared__ Ring ring;
  unsigned char* stages = memory + (1024 - shared_address(memory) % 1024) % 1024;
  const int warpgroup = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 128, 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ring.full[i].init(1);
      ring.empty[i].init(8);
    }
    publish_barriers();
  }
  __syncthreads();
  if (warpgroup == 0) {
    give_registers<40>();
    if (threadIdx.x == 0) load_tiles(c, stages, ring);
  } else {
    take_registers<232>();
    multiply_tiles<T, kCell>(c, stages, ring, warpgroup - 1, static_cast<int>(threadIdx.x) % 128);
  }
}

// [batch][heads][rows of a square][squares][channels], of squares that have these rows, `stride` rows apart.
bool encode_squares(CUtensorMap& map, const Tensor4& t, Dtype type, int batch, int heads, int squares, int of_square,
                    int stride, int channels, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  const auto bytes = [](std::int64_t elements, int n) {  // that of a single one is never used
    return static_cast<cuuint64_t>(2 * (n > 1 ? elements : std::int64_t{8}));
  };
  const auto size = [](int n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[5] = {size(channels), size(squares), size(of_square), size(heads), size(batch)};
  const cuuint64_t strides[4] = {bytes(t.row * stride, squares), bytes(t.row, of_square), bytes(t.head, heads),
                                 bytes(t.batch, batch)};
  const cuuint32_t box[5] = {kBox, static_cast<cuuint32_t>(box_rows), 1, 1, 1}, steps[5] = {1, 1, 1, 1, 1};
  const auto number = type == Dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  return encoder && encoder(&map, number, 5, t.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                            CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                            CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
// At least one whole square must be there.
bool encode_maps(Maps& to, const Tensor4& t, Dtype type, int batch, int heads, int rows, int stride, int channels,
                 int box_rows) {
  to.rest = rows % stride;
  to.early = to.late = {};
  return encode_squares(to.late, t, type, batch, heads, rows / stride, stride, stride, channels, box_rows) &&
         (to.rest == 0 || encode_squares(to.early, t, type, batch, heads, rows / stride + 1, to.rest, stride, channels, box_rows));
}

template <class T>
const void* kernel_of(int cell) {
  return cell == 4   ? reinterpret_cast<const void*>(strided_tiles<T, 4>)
         : cell == 8 ? reinterpret_cast<const void*>(strided_tiles<T, 8>)
                     : reinterpret_cast<const void*>(strided_tiles<T, 16>);
}

bool aligned(const Tensor4& t, int batch, int heads, int stride) {
  const auto fits = [](std::int64_t elements, int n) {
    return n <= 1 || (elements > 0 && elements % 8 == 0 && elements < std::int64_t{1} << 39);
  };
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && fits(t.batch, batch) && fits(t.head, heads) &&
         fits(t.row, 2) && fits(t.row * stride, 2);
}

}  // namespace

const char* strided_why_not(const StridedProduct& a) {
  if (capability() != 90) return "the GPU is not of compute capability 9.0 (H100, H200)";
  if (!aligned(a.q, a.batch, a.grid.hq, a.grid.stride) || !aligned(a.k, a.batch, a.hkv, a.grid.stride))
    return "q and k must be 16-byte aligned, their strides positive multiples of 8 elements, below 2^39";
  return nullptr;
}

const char* strided(const StridedProduct& a, void* stream) {
  const StridedGrid& g = a.grid;
  Strided c{};
  c.grid = g;
  c.scale_log2 = a.scale_log2;
  c.panels = (a.dk + kBox - 1) / kBox;
  c.hkv = a.hkv;
  c.first_head = a.first_head;
  c.tiles = a.tiles();
  c.cells = static_cast<std::uint16_t*>(a.cells);
  c.maxima = a.maxima;
  Tensor4 q = a.q;
  q.data = static_cast<std::uint16_t*>(q.data) + g.skip * q.row;
  if (!encode_maps(c.q, q, a.dtype, a.batch, g.hq, a.nq - g.skip, g.stride, a.dk, kStridedRows) ||
      !encode_maps(c.k, a.k, a.dtype, a.batch, a.hkv, a.nk, g.stride, a.dk, kStridedColumns))
    return "the driver refuses the tensors' shape or strides, or is older than CUDA 12.0";
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const void* kernel = a.dtype == Dtype::bf16 ? kernel_of<__nv_bfloat16>(g.cell) : kernel_of<__half>(g.cell);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error == cudaSuccess) {
    void* arguments[] = {&c};
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(c.tiles, processors));
    error = cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), arguments, kSharedBytes, static_cast<cudaStream_t>(stream));
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda::sm90a
