// SPDX-License-Identifier: Apache-2.0
// The functions of the ggml that loaded us, found at run time: hosts name their libraries
// differently and load them privately, so nothing of ggml is linked.
#pragma once

#include <string>

#include "host/ggml/abi.h"

namespace lacuna::ggml {

struct Api {
  const char* (*version)();
  const char* (*op_name)(int op);
  int (*graph_n_nodes)(Graph*);
  Tensor* (*graph_node)(Graph*, int i);
  std::size_t (*tensor_overhead)();
  std::size_t (*graph_overhead_custom)(std::size_t size, bool grads);
  Context* (*init)(InitParams);
  void (*free)(Context*);
  Tensor* (*new_tensor_4d)(Context*, int type, std::int64_t, std::int64_t, std::int64_t, std::int64_t);
  Tensor* (*view_4d)(Context*, Tensor*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::size_t,
                     std::size_t, std::size_t, std::size_t offset);
  Tensor* (*set_name)(Tensor*, const char*);
  Tensor* (*flash_attn_ext)(Context*, Tensor* q, Tensor* k, Tensor* v, Tensor* mask, float scale, float max_bias,
                            float softcap);
  Graph* (*new_graph_custom)(Context*, std::size_t size, bool grads);
  void (*graph_add_node)(Graph*, Tensor*);
  void (*fp32_to_fp16_row)(const float*, std::uint16_t*, std::int64_t);
  void (*fp32_to_bf16_row)(const float*, std::uint16_t*, std::int64_t);
  Buffer* (*buffer_init)(BufferType*, BufferCalls, void* context, std::size_t size);
  void (*buffer_free)(Buffer*);
  void* (*buffer_get_base)(Buffer*);
  std::size_t (*buffer_get_size)(Buffer*);
  bool (*buft_is_host)(BufferType*);
  BufferType* (*cpu_buffer_type)();
  int (*graph_compute)(Backend*, Graph*);
  void (*backend_free)(Backend*);
  void (*log)(int level, const char* format, ...);  // where the host's log goes; null: this ggml has none
  // From the registry's library; null when the host carries only the base library.
  std::size_t (*dev_count)();
  Device* (*dev_get)(std::size_t);
  int (*dev_type)(Device*);
  Backend* (*dev_init)(Device*, const char*);
  Registry* (*dev_registry)(Device*);
  void* (*reg_get_proc_address)(Registry*, const char*);

  struct Ops {
    int none = -1, view = -1, reshape = -1, permute = -1, transpose = -1, cont = -1, set_rows = -1,
        flash_attn = -1, rope = -1, mul_mat = -1, cpy = -1;
  } ops;
};

// Whether a ggml of this version is one whose layouts we have tested.
bool supported(const char* version);
// Finds and tests everything once; "" or one sentence for the user. Later calls return the same.
const std::string& load_api();
const Api& api();  // after load_api() returned ""

// How ggml's CPU backend writes floats as blocks of a quantised type, so that a cache holds the bits it would hold
// without us; null where that backend is not loaded, or writes other blocks than ours.
FromFloat quantiser(int type);

// A line in the host's log, which the user asked for.
void log_line(const std::string& line);

// dlsym over everything this process has loaded, private libraries included.
void* find_symbol(const char* name);

}  // namespace lacuna::ggml
