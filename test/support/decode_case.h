// SPDX-License-Identifier: Apache-2.0
// One decoded token over a cache of keys that a test chooses, and what a session lost of its attention, by brute force:
// which cells it attended is read off its output. A cell's value is 1 in one channel and 0 in the others, so a call
// shows kChannels cells, and calls that differ in nothing but the values show all of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kv/element.h"
#include "kv/quantise.h"
#include "lacuna/lacuna.h"

namespace lacuna::test {

inline std::unique_ptr<Session> open_session(const std::string& text) {
  auto options = parse_options(text);
  EXPECT_TRUE(options.ok()) << (options.ok() ? "" : options.error().what);
  auto s = Session::open(options.value());
  EXPECT_TRUE(s.ok()) << (s.ok() ? "" : s.error().what);
  return s.ok() ? std::move(s.value()) : nullptr;
}

struct DecodeCase {
  static constexpr int kChannels = 256;

  int hq = 4, hkv = 2, n = 512, d = 32;
  Dtype type = Dtype::f16;  // of the keys
  float softcap = 0, scale = 0;
  std::vector<float> sinks;
  std::vector<std::uint16_t> mask;  // [n], or empty: all are seen
  std::vector<float> q, keys;       // [hq][d], [hkv][n][d]

  // What the calls said.
  std::vector<std::vector<bool>> kept;  // [hq][n]
  std::vector<float> bound;             // [hq]

  float* key(int head, int cell) { return keys.data() + (static_cast<std::size_t>(head) * n + cell) * d; }
  bool sees(int cell) const { return mask.empty() || mask[static_cast<std::size_t>(cell)] == 0; }

  // Rounds the keys to their type.
  void seal() {
    raw_.assign(static_cast<std::size_t>(bytes_of(type, static_cast<std::int64_t>(keys.size()))), 0);
    store_elements(raw_.data(), type, 0, keys.data(), static_cast<std::int64_t>(keys.size()));
  }

  Tensor cache() { return contiguous(raw_.data(), type, 1, hkv, n, d); }

  void attend(Session& s, int layer = 2) {
    kept.assign(static_cast<std::size_t>(hq), std::vector<bool>(static_cast<std::size_t>(n), false));
    bound.assign(static_cast<std::size_t>(hq), NAN);
    std::vector<float> out(static_cast<std::size_t>(hq) * kChannels);
    const Dtype of_values = is_quantised(type) ? Dtype::f16 : type;
    for (int first = 0; first < n; first += kChannels) {
      std::vector<float> wide(static_cast<std::size_t>(hkv) * n * kChannels, 0.0f);
      for (int h = 0; h < hkv; ++h)
        for (int c = first; c < std::min(n, first + kChannels); ++c)
          wide[(static_cast<std::size_t>(h) * n + c) * kChannels + static_cast<std::size_t>(c - first)] = 1.0f;
      std::vector<char> values(static_cast<std::size_t>(bytes_of(of_values, static_cast<std::int64_t>(wide.size()))));
      store_elements(values.data(), of_values, 0, wide.data(), static_cast<std::int64_t>(wide.size()));
      AttendCall call;
      call.layer = layer;
      call.q = contiguous(q.data(), Dtype::f32, 1, hq, 1, d);
      call.k = cache();
      call.v = contiguous(values.data(), of_values, 1, hkv, n, kChannels);
      call.out = contiguous(out.data(), Dtype::f32, 1, hq, 1, kChannels);
      call.softcap = softcap;
      call.scale = scale;
      call.sinks = sinks.empty() ? nullptr : sinks.data();
      if (!mask.empty()) call.mask = {mask.data(), n, nullptr, nullptr};
      call.lost_at_most = bound.data();
      const Status done = s.attend(call);
      ASSERT_TRUE(done.ok()) << done.error().what;
      for (int h = 0; h < hq; ++h)
        for (int c = first; c < std::min(n, first + kChannels); ++c)
          kept[static_cast<std::size_t>(h)][static_cast<std::size_t>(c)] =
              out[static_cast<std::size_t>(h) * kChannels + static_cast<std::size_t>(c - first)] > 0;
    }
  }

  // The share of the head's exact softmax on cells it sees and did not attend. A weight that is 0 in f32 counts as not
  // attended: less than 1e-37 each.
  double lost(int h) const {
    std::vector<double> score(static_cast<std::size_t>(n), -INFINITY);
    double top = sinks.empty() ? -INFINITY : sinks[static_cast<std::size_t>(h)];
    for (int c = 0; c < n; ++c) {
      if (!sees(c)) continue;
      double sum = 0;
      const std::int64_t at = (static_cast<std::int64_t>(h / (hq / hkv)) * n + c) * d;
      for (int i = 0; i < d; ++i)
        sum += static_cast<double>(q[static_cast<std::size_t>(h * d + i)]) * element(raw_.data(), type, at + i);
      sum *= scale != 0 ? static_cast<double>(scale) : static_cast<double>(1.0f / std::sqrt(static_cast<float>(d)));
      score[static_cast<std::size_t>(c)] = softcap > 0 ? softcap * std::tanh(sum / softcap) : sum;
      top = std::max(top, score[static_cast<std::size_t>(c)]);
    }
    double all = sinks.empty() ? 0.0 : std::exp(sinks[static_cast<std::size_t>(h)] - top), left = 0;
    for (int c = 0; c < n; ++c) {
      const double x = std::exp(score[static_cast<std::size_t>(c)] - top);
      all += x;
      left += kept[static_cast<std::size_t>(h)][static_cast<std::size_t>(c)] ? 0.0 : x;
    }
    return left / all;
  }
  double density() const {
    double n_kept = 0, n_seen = 0;
    for (int c = 0; c < n; ++c)
      for (int h = 0; h < hq; ++h)
        n_seen += sees(c), n_kept += kept[static_cast<std::size_t>(h)][static_cast<std::size_t>(c)];
    return n_kept / n_seen;
  }

 private:
  std::vector<char> raw_;
};

}  // namespace lacuna::test
