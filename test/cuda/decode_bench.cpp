// SPDX-License-Identifier: Apache-2.0
// lacuna-cuda-bench decode: how fast the decode kernel is beside a copy of the same run. Each case is checked first, on
// sampled rows against double precision.
//
// Bytes count every visible key and its value once. A call is timed in a CUDA graph of many, one after another, which
// take turns among several caches or lists where one would stay in the L2 cache. Lists are of random pages, one list
// for each KV head; `against` is the dense call of the same lengths in the same run.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "bench.h"
#include "copy.h"
#include "kernel/cuda/decode.h"

namespace lacuna::test {
namespace {

using kernel::cuda::Decode;
using kernel::cuda::Tensor4;

struct Case {
  const char* name;
  int batch, hq, hkv, nq, n, dk, dv;
  double density = 1;  // below 1: lists
  int cells = 16;      // of a list's pages
  int page = 0;        // of the cache's pages; 0: in order
  const char* against = nullptr;
  bool ragged = false;  // sequence b has n / 2^b keys
};

constexpr Case kCases[] = {
    {"dense 32k", 8, 32, 8, 1, 32768, 128, 128},
    {"dense 64k", 8, 32, 8, 1, 65536, 128, 128},
    {"dense 128k", 8, 32, 8, 1, 131072, 128, 128},
    {"pages 16, 0.10 of 32k", 8, 32, 8, 1, 32768, 128, 128, 0.1, 16, 0, "dense 32k"},
    {"pages 16, 0.10 of 64k", 8, 32, 8, 1, 65536, 128, 128, 0.1, 16, 0, "dense 64k"},
    {"pages 16, 0.10 of 128k", 8, 32, 8, 1, 131072, 128, 128, 0.1, 16, 0, "dense 128k"},
    {"pages 32, 0.10 of 64k", 8, 32, 8, 1, 65536, 128, 128, 0.1, 32, 0, "dense 64k"},
    {"pages 64, 0.10 of 64k", 8, 32, 8, 1, 65536, 128, 128, 0.1, 64, 0, "dense 64k"},
    {"pages 16 of a paged cache, 0.10 of 64k", 8, 32, 8, 1, 65536, 128, 128, 0.1, 16, 16, "dense 64k"},
    {"tokens, 0.10 of 64k", 8, 32, 8, 1, 65536, 128, 128, 0.1, 1, 0, "dense 64k"},
    {"dense 32k, cache in pages of 16", 8, 32, 8, 1, 32768, 128, 128, 1, 16, 16},
    {"dense 32k, cache in pages of 64", 8, 32, 8, 1, 32768, 128, 128, 1, 16, 64},
    {"dense 128k to 1k, ragged", 8, 32, 8, 1, 131072, 128, 128, 1, 16, 0, nullptr, true},
    {"dense 32k, one sequence", 1, 32, 8, 1, 32768, 128, 128},
    {"dense 4k", 8, 32, 8, 1, 4096, 128, 128},
    {"dense 32k, 4 tokens", 8, 32, 8, 4, 32768, 128, 128},
    {"dense 32k, 8 tokens", 8, 32, 8, 8, 32768, 128, 128},
    {"dense 32k, 16 tokens", 8, 32, 8, 16, 32768, 128, 128},
    {"dense 32k, D 64", 8, 32, 8, 1, 32768, 64, 64},
    {"dense 32k, D 80", 8, 32, 8, 1, 32768, 80, 80},
    {"dense 32k, D 192/128", 8, 32, 8, 1, 32768, 192, 128},
    {"dense 32k, D 256", 8, 16, 4, 1, 32768, 256, 256},
};

constexpr std::size_t kCacheBytes = std::size_t{50} << 20;  // the largest L2 that these cards have

// Random numbers in a large array: the first 32 million are drawn, the rest repeats them.
void fill(const DeviceArray<std::uint16_t>& to, std::uint64_t seed) {
  const auto drawn = random_numbers(std::min<std::size_t>(to.size(), std::size_t{1} << 25), seed);
  must(cudaMemcpy(to.data(), drawn.data(), drawn.size() * 2, cudaMemcpyHostToDevice));
  for (std::size_t n = drawn.size(); n < to.size(); n *= 2)
    must(cudaMemcpy(to.data() + n, to.data(), std::min(n, to.size() - n) * 2, cudaMemcpyDeviceToDevice));
}

// Milliseconds of one of many calls in a row, call(0), call(1), ...
template <class F>
double graph_ms(F&& call, double about_ms, bool quick) {
  const int n = std::max(4, static_cast<int>(20 / about_ms));
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < n; ++i) call(i, stream);
  must(cudaStreamEndCapture(stream, &graph));
  must(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t from, to;
  must(cudaEventCreate(&from));
  must(cudaEventCreate(&to));
  std::vector<float> took;
  double spent = 0;
  for (const double limit = quick ? 150 : 400; spent < limit || took.size() < 7;) {
    float ms = 0;
    must(cudaEventRecord(from, stream));
    must(cudaGraphLaunch(replay, stream));
    must(cudaEventRecord(to, stream));
    must(cudaStreamSynchronize(stream));
    must(cudaEventElapsedTime(&ms, from, to));
    spent += ms;
    if (spent > limit / 3) took.push_back(ms);  // the first third warms the card up
  }
  must(cudaEventDestroy(from));
  must(cudaEventDestroy(to));
  must(cudaGraphExecDestroy(replay));
  must(cudaGraphDestroy(graph));
  must(cudaStreamDestroy(stream));
  std::nth_element(took.begin(), took.begin() + static_cast<std::ptrdiff_t>(took.size() / 2), took.end());
  return took[took.size() / 2] / n;
}

// GB/s of a copy of a gigabyte, read and written bytes counted, by cudaMemcpy or by a kernel, whichever is faster: what
// "as fast as the memory" means in this run.
double copy_speed(bool quick) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  const DeviceArray<char> from(kBytes), to(kBytes);
  must(cudaMemset(from.data(), 5, kBytes));
  const auto one = [&](int, cudaStream_t stream) {
    must(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream));
  };
  const auto other = [&](int, cudaStream_t stream) { copy_by_kernel(to.data(), from.data(), kBytes, stream); };
  return 2.0 * kBytes / std::min(graph_ms(one, 0.7, quick), graph_ms(other, 0.7, quick)) / 1e6;
}

// A case's numbers: tensors on the device, `sets` of lists or of caches.
class Scene {
 public:
  explicit Scene(const Case& c)
      : c_(c),
        lengths_(lengths(c)),
        keys_(listed(c)),
        sets_(std::clamp(static_cast<int>(8 * kCacheBytes / bytes() + 1), 1, 8)),
        q_(static_cast<std::size_t>(c.batch) * c.hq * c.nq * c.dk),
        k_(elements(c.dk)),
        v_(elements(c.dv)),
        out_(static_cast<std::size_t>(c.batch) * c.hq * c.nq * c.dv),
        lse_(static_cast<std::size_t>(c.batch) * c.hq * c.nq) {
    fill(q_, 1), fill(k_, 2), fill(v_, 3);
    draw_lists();
    draw_table();
    const auto up = [](const std::vector<std::int32_t>& x) { return std::make_unique<DeviceArray<std::int32_t>>(x); };
    d_lengths_ = up(lengths_), d_counts_ = up(counts_), d_pages_ = up(pages_), d_table_ = up(table_);
    work_ = std::make_unique<DeviceArray<char>>(kernel::cuda::decode_work_bytes(call(0)));
    must(cudaMemset(work_->data(), 0, work_->size()));
    must(cudaMemset(out_.data(), 0xff, out_.size() * 2));
  }

  // Keys and values that a call must read, and all else it moves.
  double bytes() const {
    const double rows = static_cast<double>(c_.batch) * c_.hq * c_.nq;
    return 2.0 * (keys_ * c_.hkv + rows) * (c_.dk + c_.dv);
  }

  Decode call(int turn) const {
    const int set = turn % sets_;
    Decode a;
    a.batch = c_.batch, a.hq = c_.hq, a.hkv = c_.hkv, a.nq = c_.nq, a.nk = c_.n, a.dk = c_.dk, a.dv = c_.dv;
    a.causal = true, a.scale = 1 / std::sqrt(static_cast<float>(c_.dk)), a.lse = lse_.data();
    a.q = heads_of(q_.data(), c_.hq, c_.nq, c_.dk), a.out = heads_of(out_.data(), c_.hq, c_.nq, c_.dv);
    const int rows = c_.page ? c_.page : c_.n;
    a.k = heads_of(k_.data() + (lists() ? 0 : set * elements(c_.dk) / sets_), c_.hkv, rows, c_.dk);
    a.v = heads_of(v_.data() + (lists() ? 0 : set * elements(c_.dv) / sets_), c_.hkv, rows, c_.dv);
    if (c_.ragged && d_lengths_) a.lengths = d_lengths_->data();
    if (lists() && d_counts_)
      a.lists = {c_.cells, c_.hkv, most(), d_counts_->data(), d_pages_->data() + set * pages_.size() / sets_};
    if (c_.page && d_table_) a.table = {c_.page, c_.n / c_.page, c_.batch * (c_.n / c_.page), d_table_->data()};
    if (work_) a.work = work_->data();
    return a;
  }

  // Largest relative distance of sampled rows of call(0) from double precision.
  double error() const {
    double worst = 0;
    for (int sample = 0; sample < 3; ++sample) {
      const int b = sample * 5 % c_.batch, h = (sample * 13 + 1) % c_.hq, i = sample % c_.nq, kv = h / (c_.hq / c_.hkv);
      const auto query = q_.get(row(c_.hq, c_.nq, b, h, i) * c_.dk, c_.dk),
                 got = out_.get(row(c_.hq, c_.nq, b, h, i) * c_.dv, c_.dv);
      std::vector<double> want(c_.dv);
      double m = -INFINITY, l = 0;
      for (const int first : chunks(b, kv)) {
        const int rows = std::min(step(), lengths_[b] - first);
        const auto keys = k_.get(at(b, kv, first) * c_.dk, static_cast<std::size_t>(rows) * c_.dk),
                   values = v_.get(at(b, kv, first) * c_.dv, static_cast<std::size_t>(rows) * c_.dv);
        for (int j = 0; j < rows && first + j <= i + lengths_[b] - c_.nq; ++j) {
          double s = 0;
          for (int d = 0; d < c_.dk; ++d)
            s += static_cast<double>(bf16_to_float(query[d])) *
                 bf16_to_float(keys[static_cast<std::size_t>(j) * c_.dk + d]);
          s /= std::sqrt(static_cast<double>(c_.dk));
          const double top = std::max(m, s), shrink = std::exp(m - top), e = std::exp(s - top);
          m = top, l = l * shrink + e;
          for (int d = 0; d < c_.dv; ++d)
            want[d] = want[d] * shrink + e * bf16_to_float(values[static_cast<std::size_t>(j) * c_.dv + d]);
        }
      }
      double off = 0, size = 0;
      for (int d = 0; d < c_.dv; ++d) {
        off += std::pow(bf16_to_float(got[d]) - want[d] / l, 2);
        size += std::pow(want[d] / l, 2);
      }
      const double error = std::sqrt(off / size);
      worst = error <= worst ? worst : error;  // NaN stays
    }
    return worst;
  }

 private:
  static std::vector<std::int32_t> lengths(const Case& c) {
    std::vector<std::int32_t> all;
    for (int b = 0; b < c.batch; ++b) all.push_back(c.ragged ? c.n >> b : c.n);
    return all;
  }
  static double listed(const Case& c) {  // keys of a KV head, of all sequences
    if (c.density < 1) return static_cast<double>(c.batch) * static_cast<int>(c.density * c.n / c.cells) * c.cells;
    const auto all = lengths(c);
    return std::accumulate(all.begin(), all.end(), 0.0);
  }
  bool lists() const { return c_.density < 1; }
  int most() const { return static_cast<int>(c_.density * c_.n / c_.cells); }
  std::size_t elements(int d) const {
    return static_cast<std::size_t>(c_.batch) * c_.hkv * c_.n * d * (lists() ? 1 : sets_);
  }
  static Tensor4 heads_of(void* data, int heads, int rows, int d) {
    return {data, std::int64_t{heads} * rows * d, std::int64_t{rows} * d, d};
  }
  static std::size_t row(int heads, int rows, int b, int h, int i) {
    return (static_cast<std::size_t>(b) * heads + static_cast<std::size_t>(h)) * rows + static_cast<std::size_t>(i);
  }
  // The row of k and v where a key lies, and from where on `step()` of them are neighbours.
  std::size_t at(int b, int kv, int key) const {
    if (!c_.page) return row(c_.hkv, c_.n, b, kv, key);
    return row(c_.hkv, c_.page, table_[static_cast<std::size_t>(b) * (c_.n / c_.page) + key / c_.page], kv,
               key % c_.page);
  }
  int step() const { return c_.page ? std::min(c_.page, lists() ? c_.cells : c_.page) : lists() ? c_.cells : c_.n; }
  std::vector<int> chunks(int b, int kv) const {
    std::vector<int> all;
    if (lists())
      for (int e = 0; e < most(); ++e) all.push_back(pages_[row(c_.hkv, most(), b, kv, e)] * c_.cells);
    else
      for (int first = 0; first < lengths_[b]; first += step()) all.push_back(first);
    return all;
  }

  void draw_lists() {
    if (!lists()) return;
    Rng rng(11);
    std::vector<std::int32_t> all(static_cast<std::size_t>(c_.n / c_.cells));
    for (int list = 0; list < sets_ * c_.batch * c_.hkv; ++list) {
      std::iota(all.begin(), all.end(), 0);
      for (int e = 0; e < most(); ++e) std::swap(all[e], all[e + rng.below(all.size() - static_cast<std::size_t>(e))]);
      std::sort(all.begin(), all.begin() + most());
      pages_.insert(pages_.end(), all.begin(), all.begin() + most());
    }
    counts_.assign(static_cast<std::size_t>(c_.batch) * c_.hkv, most());
  }
  void draw_table() {
    if (!c_.page) return;
    Rng rng(12);
    table_.resize(static_cast<std::size_t>(c_.batch) * (c_.n / c_.page));
    std::iota(table_.begin(), table_.end(), 0);
    for (std::size_t i = table_.size(); i > 1; --i) std::swap(table_[i - 1], table_[rng.below(i)]);
  }

  const Case c_;
  const std::vector<std::int32_t> lengths_;
  const double keys_;
  const int sets_;
  const DeviceArray<std::uint16_t> q_, k_, v_, out_;
  const DeviceArray<float> lse_;
  std::vector<std::int32_t> counts_, pages_, table_;
  std::unique_ptr<DeviceArray<std::int32_t>> d_lengths_, d_counts_, d_pages_, d_table_;
  std::unique_ptr<DeviceArray<char>> work_;
};

nlohmann::json measure(const Case& c, bool quick, double copy) {
  const Scene scene(c);
  nlohmann::json r{{"case", c.name}};
  if (const char* reason = kernel::cuda::decode_why_not(scene.call(0))) {
    r["refused"] = reason;
    return r;
  }
  const auto call = [&](int turn, cudaStream_t stream) {
    if (const char* error = kernel::cuda::decode(scene.call(turn), stream)) {
      fmt::print(stderr, "{}: {}\n", c.name, error);
      std::exit(1);
    }
  };
  call(0, nullptr);
  must(cudaDeviceSynchronize());
  r["error"] = scene.error();
  const double ms = graph_ms(call, scene.bytes() / 3e9, quick), speed = scene.bytes() / ms / 1e6;
  r["ms"] = ms, r["gb_per_s"] = speed, r["copy_gb_per_s"] = copy, r["of_copy"] = speed / copy;
  return r;
}

}  // namespace

int bench_decode(bool quick, const char* only, const char* file) {
  auto all = nlohmann::json::array();
  bool right = true;
  const double copy = copy_speed(quick);
  fmt::print("{:<40} {:8.0f} GB/s read and written\n", "copy", copy);
  for (const Case& c : kCases) {
    if (!std::strstr(c.name, only)) continue;
    auto r = measure(c, quick, copy);
    if (r.contains("refused")) {
      fmt::print("{:<40} refused: {}\n", c.name, r["refused"].get<std::string>());
      all.push_back(r);
      continue;
    }
    std::string beside;
    if (c.against)
      for (const auto& other : all)
        if (other["case"] == c.against) {
          r["times_dense"] = other["ms"].get<double>() / r["ms"].get<double>();
          beside = fmt::format("  {:5.2f} x dense", r["times_dense"].get<double>());
        }
    const double error = r["error"];
    const bool fine = error < 1e-2;  // NaN is not
    right = right && fine;
    fmt::print("{:<40} {:8.4f} ms {:5.0f} GB/s {:5.1f} % of copy{}  error {:.1e}{}\n", c.name, r["ms"].get<double>(),
               r["gb_per_s"].get<double>(), 100 * r["of_copy"].get<double>(), beside, error, fine ? "" : "  WRONG");
    std::fflush(stdout);
    all.push_back(r);
  }
  return save(all, file) && right ? 0 : 1;
}

}  // namespace lacuna::test
