// SPDX-License-Identifier: Apache-2.0
// llama.cpp's CPU attention as a peer: the graph of one ggml_flash_attn_ext over tensors that lie as
// llama.cpp's own cache and batch lay them. Every libggml-cpu-*.so that this machine runs is loaded
// beside the others; each registers a device of its own.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <dlfcn.h>
#include <fmt/format.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include "cli/llama/peer.h"

namespace lacuna::cli {
namespace {

struct Build {
  std::string name;
  ggml_backend_reg_t reg;
};

// The builds that run here; loaded once per process, since a library is never unloaded.
const std::vector<Build>& builds() {
  static const std::vector<Build> found = [] {
    namespace fs = std::filesystem;
    ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    std::vector<Build> all;
    const char* dir = std::getenv("LLAMA_DIR");
    std::vector<fs::path> folders;
    if (dir && *dir) folders = {fs::path(dir) / "bin", fs::path(dir) / "lib", fs::path(dir)};
    folders.emplace_back(LACUNA_LLAMA_BIN);
    // Or beside libggml itself, wherever the linker found it.
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&ggml_backend_load), &info) && info.dli_fname)
      folders.push_back(fs::path(info.dli_fname).parent_path());
    for (const fs::path& folder : folders) {
      std::vector<fs::path> files;
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (entry.path().filename().string().rfind("libggml-cpu", 0) == 0 && entry.path().extension() == ".so")
          files.push_back(entry.path());
      std::sort(files.begin(), files.end());
      for (const fs::path& file : files) {
        ggml_backend_reg_t reg = ggml_backend_load(file.c_str());  // null: needs what this machine lacks
        if (!reg || ggml_backend_reg_dev_count(reg) == 0) continue;
        std::string name = file.stem().string().substr(std::strlen("libggml-cpu"));
        if (!name.empty() && name[0] == '-') name.erase(0, 1);
        all.push_back({name.empty() ? "llama.cpp" : "llama.cpp " + name, reg});
      }
      if (!all.empty()) break;
    }
    return all;
  }();
  return found;
}

ggml_type type_of(Dtype t) {
  switch (t) {
    case Dtype::f32: return GGML_TYPE_F32;
    case Dtype::f16: return GGML_TYPE_F16;
    case Dtype::bf16: return GGML_TYPE_BF16;
    case Dtype::q8_0: return GGML_TYPE_Q8_0;
    case Dtype::q4_0: return GGML_TYPE_Q4_0;
  }
  return GGML_TYPE_F32;
}

class LlamaPeer final : public Peer {
 public:
  LlamaPeer(const Build& build, const Case& c, const AttendProblem& problem, int threads) : name_(build.name) {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(build.reg, 0);
    backend_ = ggml_backend_dev_init(device, nullptr);
    if (!backend_) return;
    using SetThreads = void (*)(ggml_backend_t, int);
    if (auto* set = reinterpret_cast<SetThreads>(ggml_backend_reg_get_proc_address(build.reg, "ggml_backend_set_n_threads")))
      set(backend_, threads);
    ctx_ = ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true});
    const std::int64_t dv = c.value_dim(), cells = (c.nkv + 255) / 256 * 256;  // llama.cpp pads to 256
    ggml_tensor* q = ggml_new_tensor_3d(ctx_, GGML_TYPE_F32, c.d, c.hq, c.nq);
    ggml_tensor* k = ggml_new_tensor_2d(ctx_, type_of(c.kv), c.d * c.hkv, cells);
    ggml_tensor* v = ggml_new_tensor_2d(ctx_, type_of(c.v_type()), dv * c.hkv, cells);
    ggml_tensor* mask = ggml_new_tensor_2d(ctx_, GGML_TYPE_F16, cells, c.nq);
    // Views [D, heads, cells] permuted to [D, cells, heads], as its graphs have them.
    const auto seen = [&](ggml_tensor* t, std::int64_t dim) {
      const std::size_t head = ggml_row_size(t->type, dim);
      ggml_tensor* view = ggml_view_3d(ctx_, t, dim, c.hkv, cells, head, t->nb[1], 0);
      return ggml_permute(ctx_, view, 0, 2, 1, 3);
    };
    out_ = ggml_flash_attn_ext(ctx_, ggml_permute(ctx_, q, 0, 2, 1, 3), seen(k, c.d), seen(v, dv), mask,
                               1.0f / std::sqrt(static_cast<float>(c.d)), 0.0f, static_cast<float>(c.softcap));
    graph_ = ggml_new_graph_custom(ctx_, 16, false);
    ggml_build_forward_expand(graph_, out_);
    if (!ggml_backend_supports_op(backend_, out_)) return;
    buffer_ = ggml_backend_alloc_ctx_tensors(ctx_, backend_);
    if (!buffer_) return;
    ggml_backend_buffer_clear(buffer_, 0);
    ggml_backend_tensor_set(q, problem.q(), 0, ggml_nbytes(q));
    ggml_backend_tensor_set(k, problem.k(), 0, static_cast<std::size_t>(c.nkv) * k->nb[1]);
    ggml_backend_tensor_set(v, problem.v(), 0, static_cast<std::size_t>(c.nkv) * v->nb[1]);
    constexpr std::uint16_t kHidden = 0xfc00;  // -infinity in f16
    std::vector<std::uint16_t> row(static_cast<std::size_t>(cells));
    for (std::int64_t i = 0; i < c.nq; ++i) {
      const auto end = static_cast<std::ptrdiff_t>(c.nkv - c.nq + i + 1);
      std::fill(row.begin(), row.begin() + end, std::uint16_t{0});
      std::fill(row.begin() + end, row.end(), kHidden);
      ggml_backend_tensor_set(mask, row.data(), static_cast<std::size_t>(i) * mask->nb[1], row.size() * 2);
    }
    usable_ = true;
  }
  ~LlamaPeer() override {
    if (buffer_) ggml_backend_buffer_free(buffer_);
    if (ctx_) ggml_free(ctx_);
    if (backend_) ggml_backend_free(backend_);
  }
  LlamaPeer(const LlamaPeer&) = delete;
  LlamaPeer& operator=(const LlamaPeer&) = delete;

  bool usable() const { return usable_; }
  std::string name() const override { return name_; }
  double run() override {
    const auto start = std::chrono::steady_clock::now();
    ggml_backend_graph_compute(backend_, graph_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::vector<float> result() override {  // its result is [D, Hq, Nq]: a row's heads side by side
    std::vector<float> x(static_cast<std::size_t>(ggml_nelements(out_)));
    ggml_backend_tensor_get(out_, x.data(), 0, ggml_nbytes(out_));
    return x;
  }

 private:
  std::string name_;
  ggml_backend_t backend_ = nullptr;
  ggml_context* ctx_ = nullptr;
  ggml_backend_buffer_t buffer_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* out_ = nullptr;
  bool usable_ = false;
};

}  // namespace

Result<std::vector<std::unique_ptr<Peer>>> llama_peers(const Case& c, const AttendProblem& problem, int threads) {
  if (builds().empty())
    return unsupported("--peer llama: no CPU build of llama.cpp (libggml-cpu*.so) that this machine runs; 'make llama' "
                       "gets one, or set LLAMA_DIR");
  std::vector<std::unique_ptr<Peer>> peers;
  for (const Build& b : builds()) {
    auto peer = std::make_unique<LlamaPeer>(b, c, problem, threads);
    if (peer->usable()) peers.push_back(std::move(peer));
  }
  if (peers.empty()) return unsupported("--peer llama: its CPU attention does not take this case");
  return peers;
}

}  // namespace lacuna::cli
