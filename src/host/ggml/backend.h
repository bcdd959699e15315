// SPDX-License-Identifier: Apache-2.0
// One backend instance: one llama_context's attention, and the session that reports on it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host/ggml/abi.h"
#include "host/ggml/cache.h"
#include "host/ggml/config.h"
#include "host/ggml/threads.h"

namespace lacuna::ggml {

class Instance {
 public:
  // Null with a line on stderr if the session does not open.
  static std::unique_ptr<Instance> open(const Config& config, bool own_buffers);
  ~Instance();

  int compute(Graph* graph);
  void set_threads(int n) { threads_.set_workers(n); n_threads_ = n; }
  void announce(int n_layers, std::int64_t prompt_tokens);  // 0, -1: unknown
  void reset_report();
  Session& session() { return *session_; }
  std::string report_json() const { return session_->report_json(); }
  std::string summary() const;  // one line: density, lost mass, what attention and its audit took
  // Called after each line of Config::log_seconds.
  void on_line(std::function<void(const Instance&)> call) { on_line_ = std::move(call); }
  bool attended() const { return graphs_ > 0; }
  const Config& config() const { return config_; }

 private:
  Instance() = default;
  int run(Graph* graph);
  void log_now_and_then();
  lacuna::Status attend(const Tensor& op);
  lacuna::Status attend_stream(const Tensor& op, std::int64_t s, CacheTensor* k, CacheTensor* v);
  lacuna::Status write_rows(const Tensor& op);
  lacuna::Status rotate(const Tensor& op);
  const PackedTensor* side_copy(CacheTensor* cache, const lacuna::Tensor& raw, std::int64_t stream,
                                PackedTensor::Role role, int layer);
  void begin_graph();
  void learn_positions(const Tensor& op, CacheTensor& cache);
  bool event(CacheTensor& cache, bool CacheTensor::* flag);

  Config config_;
  bool own_buffers_ = true;
  HostThreads threads_;
  int n_threads_ = 0;
  std::unique_ptr<Session> session_;
  Backend* cpu_ = nullptr;  // ggml's own, for rotations in the cache

  // Of the current graph.
  std::vector<CacheTensor*> touched_;
  std::map<const void*, const Tensor*> masks_;                        // by address
  std::map<const Tensor*, std::vector<std::int32_t>> positions_;      // of the rows, by input tensor
  std::vector<std::int32_t> row_cell_;
  std::vector<float> slopes_;

  std::int64_t graphs_ = 0;
  bool counted_ = true, told_unfit_ = false;
  std::chrono::steady_clock::time_point last_line_{};  // in the host's log
  std::function<void(const Instance&)> on_line_;
  // The number of layers is unknown (0) until somebody says it or a graph was seen to its end.
  int n_layers_ = 0, layers_seen_ = 0, last_layer_ = -1;
  std::int64_t prompt_tokens_ = -1;
};

}  // namespace lacuna::ggml
