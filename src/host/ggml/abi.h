// SPDX-License-Identifier: Apache-2.0
// The part of ggml's binary interface a backend has to know, in our own words: ggml does not install
// the header that declares it. Field order is what counts; api.cpp tests it at load time against the
// ggml that is there, and takes only the versions it was tested with (docs/decisions/005).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lacuna::ggml {

constexpr int kApiVersion = 2;  // of ggml's registry structure

// ggml_type, as far as we take it. These numbers are part of the GGUF file format: they do not move.
enum Type : int { type_f32 = 0, type_f16 = 1, type_q4_0 = 2, type_q8_0 = 8, type_i32 = 26, type_i64 = 27, type_bf16 = 30 };
enum GraphStatus : int { status_failed = -1, status_success = 0 };
enum DeviceType : int { device_cpu = 0, device_gpu = 1, device_igpu = 2, device_accel = 3 };
constexpr int kFlagInput = 1, kFlagCompute = 16;

struct Buffer;

struct Tensor {
  int type;
  Buffer* buffer;
  std::int64_t ne[4];  // elements, innermost first
  std::size_t nb[4];   // bytes
  int op;              // its number differs between versions: see Api::Ops
  std::int32_t op_params[16];
  std::int32_t flags;
  Tensor* src[10];
  Tensor* view_src;    // the tensor whose memory this one shows, never itself a view
  std::size_t view_offs;
  void* data;
  char name[64];
  void* extra;
  char padding[8];
};

struct Graph;    // read through ggml_graph_node
struct Context;  // ggml_context
struct Device;
struct Registry;
struct Backend;
struct BufferType;

struct BufferTypeCalls {
  const char* (*get_name)(BufferType*);
  Buffer* (*alloc_buffer)(BufferType*, std::size_t size);
  std::size_t (*get_alignment)(BufferType*);
  std::size_t (*get_max_size)(BufferType*);
  std::size_t (*get_alloc_size)(BufferType*, const Tensor*);
  bool (*is_host)(BufferType*);
};

struct BufferType {
  BufferTypeCalls calls;
  Device* device;
  void* context;
};

struct BufferCalls {
  void (*free_buffer)(Buffer*);
  void* (*get_base)(Buffer*);
  int (*init_tensor)(Buffer*, Tensor*);
  void (*memset_tensor)(Buffer*, Tensor*, std::uint8_t value, std::size_t offset, std::size_t size);
  void (*set_tensor)(Buffer*, Tensor*, const void* data, std::size_t offset, std::size_t size);
  void (*get_tensor)(Buffer*, const Tensor*, void* data, std::size_t offset, std::size_t size);
  void (*set_tensor_2d)();  // optional; we leave it out, ggml then calls set_tensor piece by piece
  void (*get_tensor_2d)();
  bool (*cpy_tensor)(Buffer*, const Tensor* from, Tensor* to);
  void (*clear)(Buffer*, std::uint8_t value);
  void (*reset)(Buffer*);
};

struct Buffer {
  BufferCalls calls;
  BufferType* type;
  void* context;
  std::size_t size;
  int usage;
};

// The calls we leave out have no argument list here: they stay null.
struct BackendCalls {
  const char* (*get_name)(Backend*);
  void (*free)(Backend*);
  void (*set_tensor_async)();
  void (*get_tensor_async)();
  void (*set_tensor_2d_async)();
  void (*get_tensor_2d_async)();
  void (*cpy_tensor_async)();
  void (*synchronize)();
  void (*graph_plan_create)();
  void (*graph_plan_free)();
  void (*graph_plan_update)();
  void (*graph_plan_compute)();
  int (*graph_compute)(Backend*, Graph*);
  void (*event_record)();
  void (*event_wait)();
  void (*graph_optimize)();
};

struct Backend {
  std::uint8_t (*guid)[16];
  BackendCalls calls;
  Device* device;
  void* context;
};

struct DeviceProps {
  const char* name;
  const char* description;
  std::size_t memory_free, memory_total;  // bytes
  int type;
  const char* device_id;
  bool async, host_buffer, buffer_from_host_ptr, events, mmap_support;
};

struct DeviceCalls {
  const char* (*get_name)(Device*);
  const char* (*get_description)(Device*);
  void (*get_memory)(Device*, std::size_t* free, std::size_t* total);
  int (*get_type)(Device*);
  void (*get_props)(Device*, DeviceProps*);
  Backend* (*init_backend)(Device*, const char* params);
  BufferType* (*get_buffer_type)(Device*);
  BufferType* (*get_host_buffer_type)(Device*);
  Buffer* (*buffer_from_host_ptr)(Device*, void*, std::size_t size, std::size_t max_tensor_size);
  bool (*supports_op)(Device*, const Tensor*);
  bool (*supports_buft)(Device*, BufferType*);
  bool (*offload_op)(Device*, const Tensor*);
  void (*event_new)();
  void (*event_free)();
  void (*event_synchronize)();
};

struct Device {
  DeviceCalls calls;
  Registry* registry;
  void* context;
};

struct RegistryCalls {
  const char* (*get_name)(Registry*);
  std::size_t (*get_device_count)(Registry*);
  Device* (*get_device)(Registry*, std::size_t index);
  void* (*get_proc_address)(Registry*, const char* name);
};

struct Registry {
  int api_version;
  RegistryCalls calls;
  void* context;
};

// Of ggml's CPU backend, for one type; the fields after this one are not ours.
using FromFloat = void (*)(const float*, void*, std::int64_t n);
struct CpuTypeTraits {
  FromFloat from_float;
};

struct InitParams {  // of ggml_init, passed by value
  std::size_t mem_size;
  void* mem_buffer;
  bool no_alloc;
};

}  // namespace lacuna::ggml
