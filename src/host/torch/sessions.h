// SPDX-License-Identifier: Apache-2.0
// The sessions of the process, by number. Operators of PyTorch pass numbers and tensors only; Python opens, asks and
// closes sessions through the C functions at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "lacuna/lacuna.h"

namespace lacuna::torch_host {

struct OpenSession {
  std::unique_ptr<Session> session;
  std::mutex mutex;  // a session serves one call at a time
  std::string report;
};

// What lacuna_torch_error() will say of this thread.
void keep_error(std::string what);

// A session while a call uses it: nobody else does, and the number of threads stays. Throws std::invalid_argument where
// there is none of that number.
class InUse {
 public:
  explicit InUse(std::int64_t number);
  Session* operator->() const { return open_->session.get(); }
  const char* keep_report() const { return (open_->report = open_->session->report_json()).c_str(); }

 private:
  std::shared_lock<std::shared_mutex> threads_;
  std::shared_ptr<OpenSession> open_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace lacuna::torch_host

#define LACUNA_TORCH_API extern "C" __attribute__((visibility("default")))

LACUNA_TORCH_API const char* lacuna_torch_version();
// A new session from the text of parse_options(); 0: lacuna_torch_error() says why.
LACUNA_TORCH_API std::int64_t lacuna_torch_open(const char* text);
LACUNA_TORCH_API void lacuna_torch_close(std::int64_t number);
// The session's report as JSON, until the next call for this session; null: no such session.
LACUNA_TORCH_API const char* lacuna_torch_report(std::int64_t number);
LACUNA_TORCH_API void lacuna_torch_reset_report(std::int64_t number);
// As Session::announce.
LACUNA_TORCH_API void lacuna_torch_announce(std::int64_t number, int n_layers, std::int64_t prompt_tokens);
LACUNA_TORCH_API void lacuna_torch_set_threads(int n);
LACUNA_TORCH_API int lacuna_torch_threads();
// Of this thread's last failure.
LACUNA_TORCH_API const char* lacuna_torch_error();
