// SPDX-License-Identifier: Apache-2.0
#include "host/torch/sessions.h"

#include <exception>
#include <map>
#include <stdexcept>

#include "host/torch/threads.h"

namespace lacuna::torch_host {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::int64_t, std::shared_ptr<OpenSession>> open;
  std::int64_t next = 1;
  std::shared_mutex threads;  // shared by calls; alone where their number changes
};

Table& table() {
  static auto* const t = new Table;  // never destroyed: Python may close sessions after static objects are gone
  return *t;
}

thread_local std::string last_error;

std::shared_ptr<OpenSession> find(std::int64_t number) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  const auto at = table().open.find(number);
  return at == table().open.end() ? nullptr : at->second;
}

// What fails leaves its text for lacuna_torch_error().
template <class F>
auto guarded(const F& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception& e) {
    last_error = e.what();
  } catch (...) {
    last_error = "an exception of unknown type";
  }
  return decltype(body())();
}

}  // namespace

void keep_error(std::string what) { last_error = std::move(what); }

InUse::InUse(std::int64_t number) : threads_(table().threads), open_(find(number)) {
  if (!open_) throw std::invalid_argument("lacuna: session " + std::to_string(number) + " is not open in this process: it was closed");
  lock_ = std::unique_lock<std::mutex>(open_->mutex);
}

}  // namespace lacuna::torch_host

using namespace lacuna::torch_host;

const char* lacuna_torch_version() { return lacuna::version(); }

std::int64_t lacuna_torch_open(const char* text) {
  return guarded([&]() -> std::int64_t {
    auto options = lacuna::parse_options(text ? text : "");
    if (!options.ok()) throw std::invalid_argument(options.error().what);
    options.value().parallel = &shared_threads();
    auto session = lacuna::Session::open(options.value());
    if (!session.ok()) throw std::invalid_argument(session.error().what);
    auto entry = std::make_shared<OpenSession>();
    entry->session = std::move(session.value());
    const std::lock_guard<std::mutex> lock(table().mutex);
    const std::int64_t number = table().next++;
    table().open[number] = std::move(entry);
    return number;
  });
}

void lacuna_torch_close(std::int64_t number) {
  std::shared_ptr<OpenSession> last;  // declared first: destroyed after the lock is given back
  const std::lock_guard<std::mutex> lock(table().mutex);
  if (const auto at = table().open.find(number); at != table().open.end()) {
    last = std::move(at->second);
    table().open.erase(at);
  }
}

const char* lacuna_torch_report(std::int64_t number) {
  return guarded([&]() -> const char* {
    const InUse session(number);
    return session.keep_report();
  });
}

void lacuna_torch_reset_report(std::int64_t number) {
  guarded([&] { InUse(number)->reset_report(); });
}

void lacuna_torch_announce(std::int64_t number, int n_layers, std::int64_t prompt_tokens) {
  guarded([&] { InUse(number)->announce(n_layers, prompt_tokens); });
}

void lacuna_torch_set_threads(int n) {
  const std::unique_lock<std::shared_mutex> alone(table().threads);
  shared_threads().set_workers(n);
}

int lacuna_torch_threads() { return shared_threads().workers(); }

const char* lacuna_torch_error() { return last_error.c_str(); }
