// SPDX-License-Identifier: Apache-2.0
// What the tests of the CUDA kernels share: a fixture that skips where there is no GPU, outputs with poison around
// them, the distance to the reference and the bound on it, other work on the card beside, and CUDA graphs.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <future>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "device.h"
#include "host_case.h"
#include "kernel/cuda/tensor.h"

namespace lacuna::test {

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no GPU here";
    must(cudaDeviceGetAttribute(&major_, cudaDevAttrComputeCapabilityMajor, 0));
  }
  int major_ = 0;  // of the compute capability
};

// A tensor on the device that lies as it does on the host.
inline kernel::cuda::Tensor4 like(const HostTensor& t, void* data) { return {data, t.batch, t.head, t.row}; }

// What a kernel wrote to a tensor that was kUntouched, taken out of its gaps; `clean` becomes false when a number was
// not written, or anything in a gap was.
template <class Spec>
std::vector<float> taken_out(const HostCase<Spec>& c, const HostTensor& layout, std::vector<std::uint16_t> written,
                             bool& clean) {
  std::vector<float> x;
  layout.for_each([&](std::size_t at) {
    clean = clean && written[at] != HostTensor::kUntouched;
    x.push_back(c.number(written[at]));
    written[at] = HostTensor::kUntouched;
  });
  for (const std::uint16_t gap : written) clean = clean && gap == HostTensor::kUntouched;
  return x;
}

// out and lse of a forward call on the device, with poison around and between the rows.
class DeviceOut {
 public:
  static constexpr std::size_t kGap = 9;  // before and after lse

  template <class Spec>
  explicit DeviceOut(const HostCase<Spec>& c)
      : layout_(c.out_layout()),
        with_lse_(c.s.lse),
        out_(layout_.data),
        lse_(static_cast<std::size_t>(c.s.batch) * c.s.hq * c.s.nq + 2 * kGap) {
    poison();
  }
  void poison() {
    must(cudaMemset(lse_.data(), 0xff, lse_.size() * sizeof(float)));
    out_.set(std::vector<std::uint16_t>(out_.size(), HostTensor::kUntouched));
  }

  kernel::cuda::Tensor4 out_argument() const { return like(layout_, out_.data()); }
  float* lse_argument() const { return with_lse_ ? lse_.data() + kGap : nullptr; }

  std::vector<std::uint16_t> out() const { return out_.get(); }
  std::vector<float> lse() const { return lse_.get(); }

  // Without gaps, and without lse where it was not asked for; `clean` as above.
  template <class Spec>
  HostResult result(const HostCase<Spec>& c, bool& clean) const {
    HostResult r{taken_out(c, layout_, out(), clean), {}};
    const std::vector<float> all = lse();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool inside = with_lse_ && i >= kGap && i < all.size() - kGap;
      clean = clean && (std::bit_cast<std::uint32_t>(all[i]) == 0xffffffffu) != inside;
      if (inside) r.lse.push_back(all[i]);
    }
    return r;
  }

 private:
  HostTensor layout_;
  bool with_lse_;
  DeviceArray<std::uint16_t> out_;
  DeviceArray<float> lse_;
};

// Largest distances, and whether NaN and infinities agree.
struct Distance {
  double out = 0, lse = 0;
  bool same_shape = true;
  void add(double& worst, float x, float y) {
    if (x == y || (std::isnan(x) && std::isnan(y))) return;
    if (!std::isfinite(x) || !std::isfinite(y))
      same_shape = false;
    else
      worst = std::max(worst, std::fabs(static_cast<double>(x) - y));
  }
};
inline Distance between(const std::vector<float>& x, const std::vector<float>& y) {
  Distance d;
  for (std::size_t i = 0; i < x.size(); ++i) d.add(d.out, x[i], y[i]);
  return d;
}
inline Distance between(const HostResult& x, const HostResult& y) {
  Distance d = between(x.out, y.out);
  for (std::size_t i = 0; i < x.lse.size(); ++i) d.add(d.lse, x.lse[i], y.lse[i]);  // none where it was not asked for
  return d;
}

inline double allowed(double plain_error) { return 2 * plain_error + 1e-3; }

// A forward call, its reference, and how far from it a kernel may be.
template <class Case>
struct Expected {
  std::unique_ptr<Case> c;
  HostResult want;
  Distance allowed;
};
template <class Case, class Spec>
Expected<Case> expect(const Spec& s) {
  Expected<Case> e{std::make_unique<Case>(s), {}, {}};
  e.want = e.c->reference();
  for (const float shift : {0.0f, 0.4f}) {
    const Distance d = between(e.c->plain(shift), e.want);
    e.allowed.out = std::max(e.allowed.out, d.out);
    e.allowed.lse = std::max(e.allowed.lse, d.lse);
  }
  e.allowed.out = allowed(e.allowed.out), e.allowed.lse = allowed(e.allowed.lse);
  return e;
}

// make(spec) of each, in order: references take longer than the GPU, so as many at a time as there are cores.
template <class Spec, class Make>
auto coming(const std::vector<Spec>& specs, Make make) {
  static std::counting_semaphore<> cores(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  std::vector<std::future<std::invoke_result_t<Make, const Spec&>>> all;
  for (const Spec& s : specs)
    all.push_back(std::async(std::launch::async, [s, make] {
      cores.acquire();
      auto e = make(s);
      cores.release();
      return e;
    }));
  return all;
}

// The call again and again with other work on the card beside: bits() must stay what they are now. `line` says of what.
template <class Poison, class Call, class Bits>
void same_bits_beside_other_work(int times, const std::string& line, Poison&& poison, Call&& call, Bits&& bits) {
  const auto first = bits();
  DeviceArray<char> other(std::size_t{64} << 20);
  cudaStream_t beside;
  must(cudaStreamCreateWithFlags(&beside, cudaStreamNonBlocking));
  for (int again = 0; again < times; ++again) {
    if (again % 10 == 0) poison();
    must(cudaMemsetAsync(other.data(), again, other.size(), beside));
    ASSERT_EQ(call(), nullptr) << line;
    if (again % 10 == 9) {
      must(cudaDeviceSynchronize());
      ASSERT_EQ(first, bits()) << "time " << again << ": " << line;
    }
  }
  must(cudaStreamDestroy(beside));
}

// A CUDA graph of what record(stream) starts.
class Graph {
 public:
  template <class Record>
  explicit Graph(Record&& record) {
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    record(stream_);
    must(cudaStreamEndCapture(stream_, &graph_));
    must(cudaGraphInstantiate(&replay_, graph_, 0));
  }
  ~Graph() {
    cudaGraphExecDestroy(replay_);
    cudaGraphDestroy(graph_);
    cudaStreamDestroy(stream_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay(int times) {
    for (int i = 0; i < times; ++i) must(cudaGraphLaunch(replay_, stream_));
    must(cudaStreamSynchronize(stream_));
  }

 private:
  cudaStream_t stream_{};
  cudaGraph_t graph_{};
  cudaGraphExec_t replay_{};
};

}  // namespace lacuna::test
