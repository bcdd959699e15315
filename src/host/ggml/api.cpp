// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/api.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdio>
#include <cstring>

#include "host/ggml/types.h"

namespace lacuna::ggml {
namespace {

Api the_api;

struct Wanted {
  const char* name;
  void* found;
};

int look(dl_phdr_info* info, std::size_t, void* context) {
  auto& wanted = *static_cast<Wanted*>(context);
  // Only libraries of ggml and programs that contain it are asked: RTLD_NOLOAD keeps this a look.
  if (!info->dlpi_name || !*info->dlpi_name || !std::strstr(info->dlpi_name, "ggml")) return 0;
  if (void* handle = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD)) {
    wanted.found = dlsym(handle, wanted.name);
    dlclose(handle);
  }
  return wanted.found != nullptr;
}

template <class F>
bool find(F& function, const char* name) {
  function = reinterpret_cast<F>(find_symbol(name));
  return function != nullptr;
}

// Makes tensors and a buffer with ggml's own functions and looks whether our declarations see what
// was put in. Empty if so, else what differs.
std::string probe() {
  const Api& g = the_api;
  constexpr std::size_t kObject = 32;  // ggml's header before each tensor
  if (g.tensor_overhead() != kObject + sizeof(Tensor)) return "the size of ggml_tensor";
  Context* context = g.init({16 * g.tensor_overhead(), nullptr, true});
  if (!context) return "ggml_init";
  std::string wrong;
  Tensor* q = g.new_tensor_4d(context, type_f32, 32, 3, 8, 2);
  Tensor* cache = g.new_tensor_4d(context, type_f16, 32, 4, 16, 2);
  Tensor* k = g.view_4d(context, cache, 32, 8, 4, 2, 256, 64, 4096, 64);
  Tensor* mask = g.new_tensor_4d(context, type_f16, 8, 3, 1, 1);
  Tensor* out = g.flash_attn_ext(context, q, k, k, mask, 0.25f, 0.5f, 2.0f);
  g.set_name(cache, "cache_k_l7");
  float params[3];
  std::memcpy(params, out->op_params, sizeof params);
  if (q->type != type_f32 || q->ne[0] != 32 || q->ne[1] != 3 || q->ne[3] != 2 || q->nb[1] != 128) wrong = "ggml_tensor: shape";
  else if (k->view_src != cache || k->view_offs != 64 || k->nb[1] != 256 || k->nb[3] != 4096) wrong = "ggml_tensor: view";
  else if (std::strcmp(cache->name, "cache_k_l7") != 0) wrong = "ggml_tensor: name";
  else if (out->op != g.ops.flash_attn || out->src[0] != q || out->src[1] != k || out->src[3] != mask || out->src[4])
    wrong = "ggml_tensor: op and sources";
  else if (params[0] != 0.25f || params[1] != 0.5f || params[2] != 2.0f) wrong = "ggml_tensor: op parameters";
  g.free(context);
  if (!wrong.empty()) return wrong;

  BufferType type{};
  type.calls.is_host = [](BufferType*) { return true; };
  BufferCalls calls{};
  static int freed;
  freed = 0;
  calls.free_buffer = [](Buffer*) { ++freed; };
  calls.get_base = [](Buffer* b) { return b->context; };
  Buffer* buffer = g.buffer_init(&type, calls, params, 4096);
  if (g.buffer_get_base(buffer) != params || g.buffer_get_size(buffer) != 4096 || buffer->type != &type ||
      !g.buft_is_host(&type))
    wrong = "ggml_backend_buffer";
  g.buffer_free(buffer);
  if (wrong.empty() && freed != 1) wrong = "ggml_backend_buffer: free";
  return wrong;
}

std::string load() {
  Api& g = the_api;
  if (!find(g.version, "ggml_version"))
    return "no ggml_version() in this process: need a llama.cpp with shared libraries of ggml 0.25";
  if (!supported(g.version()))
    return std::string("ggml ") + g.version() + " is not supported: need 0.25.x; build llama.cpp of that version " +
           "('make llama'), or take a Lacuna made for yours";
  const char* missing = nullptr;
  const auto need = [&](auto& function, const char* name) { if (!find(function, name)) missing = name; };
  need(g.op_name, "ggml_op_name");
  need(g.graph_n_nodes, "ggml_graph_n_nodes");
  need(g.graph_node, "ggml_graph_node");
  need(g.tensor_overhead, "ggml_tensor_overhead");
  need(g.graph_overhead_custom, "ggml_graph_overhead_custom");
  need(g.init, "ggml_init");
  need(g.free, "ggml_free");
  need(g.new_tensor_4d, "ggml_new_tensor_4d");
  need(g.view_4d, "ggml_view_4d");
  need(g.set_name, "ggml_set_name");
  need(g.flash_attn_ext, "ggml_flash_attn_ext");
  need(g.new_graph_custom, "ggml_new_graph_custom");
  need(g.graph_add_node, "ggml_graph_add_node");
  need(g.fp32_to_fp16_row, "ggml_fp32_to_fp16_row");
  need(g.fp32_to_bf16_row, "ggml_fp32_to_bf16_row");
  need(g.buffer_init, "ggml_backend_buffer_init");
  need(g.buffer_free, "ggml_backend_buffer_free");
  need(g.buffer_get_base, "ggml_backend_buffer_get_base");
  need(g.buffer_get_size, "ggml_backend_buffer_get_size");
  need(g.buft_is_host, "ggml_backend_buft_is_host");
  need(g.cpu_buffer_type, "ggml_backend_cpu_buffer_type");
  need(g.graph_compute, "ggml_backend_graph_compute");
  need(g.backend_free, "ggml_backend_free");
  need(g.dev_type, "ggml_backend_dev_type");
  need(g.dev_init, "ggml_backend_dev_init");
  need(g.dev_registry, "ggml_backend_dev_backend_reg");
  need(g.reg_get_proc_address, "ggml_backend_reg_get_proc_address");
  if (missing) return std::string("ggml ") + g.version() + " lacks " + missing + ": the build is incomplete; use a standard one";
  find(g.log, "ggml_log_internal");
  find(g.dev_count, "ggml_backend_dev_count");
  find(g.dev_get, "ggml_backend_dev_get");

  struct { const char* name; int* op; } const names[] = {
      {"NONE", &g.ops.none},           {"VIEW", &g.ops.view},         {"RESHAPE", &g.ops.reshape},
      {"PERMUTE", &g.ops.permute},     {"TRANSPOSE", &g.ops.transpose}, {"CONT", &g.ops.cont},
      {"SET_ROWS", &g.ops.set_rows},   {"FLASH_ATTN_EXT", &g.ops.flash_attn}, {"ROPE", &g.ops.rope},
      {"MUL_MAT", &g.ops.mul_mat},     {"CPY", &g.ops.cpy}};
  std::size_t left = std::size(names);
  for (int op = 0; op < 96 && left; ++op)  // 0.25 has 101 of them, ours below 80; never ask beyond
    for (const auto& n : names)
      if (!std::strcmp(g.op_name(op), n.name)) *n.op = op, --left;
  if (left) return std::string("ggml ") + g.version() + " lacks an operation Lacuna needs; need 0.25.x";
  const std::string wrong = probe();
  if (!wrong.empty())
    return std::string("ggml ") + g.version() + " has another binary layout than 0.25 (" + wrong + "); build a standard 0.25";
  return "";
}

}  // namespace

// "0.25.3" or "0.25.3-dev"
bool supported(const char* version) {
  int major = -1, minor = -1;
  return std::sscanf(version, "%d.%d", &major, &minor) == 2 && major == 0 && minor == 25;
}

void log_line(const std::string& line) {
  constexpr int kWarn = 3;  // GGML_LOG_LEVEL_WARN: llama.cpp's tools hide what libraries tell as information (but with -lv 4)
  if (the_api.log) the_api.log(kWarn, "%s\n", line.c_str());
  else std::fprintf(stderr, "%s\n", line.c_str());
}

void* find_symbol(const char* name) {
  if (void* p = dlsym(RTLD_DEFAULT, name)) return p;
  Wanted wanted{name, nullptr};
  dl_iterate_phdr(look, &wanted);
  return wanted.found;
}

const std::string& load_api() {
  static const std::string error = load();
  return error;
}

const Api& api() { return the_api; }

namespace {

// The backend may be loaded after us: it is asked for when the first quantised cache shows up.
FromFloat find_quantiser(int type) {
  const auto traits = reinterpret_cast<const CpuTypeTraits* (*)(int)>(find_symbol("ggml_get_type_traits_cpu"));
  const CpuTypeTraits* of = traits ? traits(type) : nullptr;
  if (!of || !of->from_float) return nullptr;
  // Numbers whose scale is 1, so that every byte of their block is known: of 127 and less, of -8 and more.
  const bool bytes = type == type_q8_0;
  float x[32];
  unsigned char block[34] = {}, want[34] = {0x00, 0x3c};  // 1 as f16
  for (int i = 0; i < 32; ++i) {
    const int n = bytes ? 127 - i * 8 : i % 16 - 8;
    x[i] = static_cast<float>(n);
    if (bytes) want[2 + i] = static_cast<unsigned char>(n);
    else want[2 + i % 16] |= static_cast<unsigned char>((n + 8) << (i < 16 ? 0 : 4));
  }
  of->from_float(x, block, 32);
  if (std::memcmp(block, want, unit_bytes(type)) != 0) return nullptr;
  return of->from_float;
}

}  // namespace

FromFloat quantiser(int type) {
  static const FromFloat q8_0 = find_quantiser(type_q8_0), q4_0 = find_quantiser(type_q4_0);
  return type == type_q8_0 ? q8_0 : type == type_q4_0 ? q4_0 : nullptr;
}

}  // namespace lacuna::ggml
