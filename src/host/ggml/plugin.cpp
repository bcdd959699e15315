// SPDX-License-Identifier: Apache-2.0
// What ggml sees of us: two exported functions, one registry, one device, and the backend instances
// (one per llama_context) that the device makes.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "host/ggml/api.h"
#include "host/ggml/backend.h"
#include "host/ggml/cache.h"
#include "host/ggml/claim.h"
#include "host/ggml/config.h"

namespace lacuna::ggml {
namespace {

struct Plugin {
  std::mutex mutex;
  Config config;
  bool own_buffers = true;   // a GPU-like device with buffers of its own; false: an accelerator
  Instance* latest = nullptr;
  std::string last_report;   // of the instance that ended last
  std::set<std::string> declined;  // why attention was left to ggml
  int announced_layers = 0;
  std::int64_t announced_tokens = -1;
  Device device{};
  Registry registry{};
};

Plugin& plugin() {
  static Plugin p;
  return p;
}

Instance& instance(Backend* b) { return *static_cast<Instance*>(b->context); }

std::string full_report(const Instance& x) {
  auto report = nlohmann::json::parse(x.report_json());
  const SideBytes side = side_bytes();
  report["side_bytes"] = static_cast<std::int64_t>(side.sum()) + report.value("session_bytes", std::int64_t{0});
  report["side_bytes_by_kind"] = {{"packed", side.packed}, {"pages", side.pages}, {"int4", side.int4}, {"int8", side.int8},
                                  {"labels", side.labels}, {"pooled", side.pooled}};
  report["host_version"] = std::string("ggml ") + api().version();
  report["declined"] = plugin().declined;
  return report.dump();
}

// Written whole or not at all: into a file beside it, then renamed.
void write_report(const std::string& path, const std::string& text) {
  const std::string beside = path + "." + std::to_string(getpid()) + ".part";
  std::FILE* f = std::fopen(beside.c_str(), "w");
  const bool written = f && std::fwrite(text.data(), 1, text.size(), f) == text.size() && std::fputc('\n', f) != EOF;
  const bool closed = f && std::fclose(f) == 0;
  if (written && closed && std::rename(beside.c_str(), path.c_str()) == 0) return;
  std::remove(beside.c_str());
  std::fprintf(stderr, "lacuna: report=%s cannot be written; name a file in a folder you may write to\n", path.c_str());
}

void finish(const Instance& x, const Config& config, const std::string& text) {
  if (!config.report.empty()) write_report(config.report, text);
  if (!config.quiet && x.attended()) std::fprintf(stderr, "%s\n", x.summary().c_str());
}

// ---- backend ----

void free_backend(Backend* b) {
  Instance* x = &instance(b);
  {
    const std::lock_guard lock(plugin().mutex);
    const std::string text = full_report(*x);
    if (x->attended() || !plugin().declined.empty()) finish(*x, x->config(), text);
    if (plugin().latest == x) {
      plugin().latest = nullptr;
      plugin().last_report = text;
    }
  }
  delete x;
  delete b;
}

void set_n_threads(Backend* b, int n) { instance(b).set_threads(n); }

Backend* init_backend(Device* device, const char*) {
  static std::uint8_t guid[16] = {0x4c, 0x61, 0x63, 0x75, 0x6e, 0x61, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x30, 0x30, 0x30, 0x31};
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  auto x = Instance::open(p.config, p.own_buffers);
  if (!x) return nullptr;
  x->announce(p.announced_layers, p.announced_tokens);
  if (!p.config.report.empty())  // so that a host that is killed leaves one, too
    x->on_line([](const Instance& self) {
      const std::lock_guard held(plugin().mutex);
      write_report(self.config().report, full_report(self));
    });
  auto* b = new Backend{};
  b->guid = &guid;
  b->device = device;
  b->calls.get_name = [](Backend*) { return "Lacuna"; };
  b->calls.free = free_backend;
  b->calls.graph_compute = [](Backend* self, Graph* graph) { return instance(self).compute(graph); };
  p.latest = x.get();
  b->context = x.release();
  return b;
}

// ---- device ----

void get_memory(Device*, std::size_t* free, std::size_t* total) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  *free = static_cast<std::size_t>(std::max(sysconf(_SC_AVPHYS_PAGES), 1L)) * page;
  *total = static_cast<std::size_t>(std::max(sysconf(_SC_PHYS_PAGES), 1L)) * page;
  if (std::FILE* f = std::fopen("/proc/meminfo", "r")) {  // free pages leave out what the page cache would give back
    char line[128];
    unsigned long long kib;
    while (std::fgets(line, sizeof line, f))
      if (std::sscanf(line, "MemAvailable: %llu kB", &kib) == 1) *free = static_cast<std::size_t>(kib) << 10;
    std::fclose(f);
  }
}

int device_type(Device*) { return plugin().own_buffers ? device_gpu : device_accel; }

void get_props(Device* d, DeviceProps* props) {
  *props = {};
  props->name = d->calls.get_name(d);
  props->description = d->calls.get_description(d);
  get_memory(d, &props->memory_free, &props->memory_total);
  props->type = device_type(d);
}

bool supports_op(Device*, const Tensor* op) {
  Plugin& p = plugin();
  const char* why = nullptr;
  const Claim claim = claim_of(*op, p.own_buffers, &why);
  if (claim != Claim::none) return true;
  if (why) {
    const std::lock_guard lock(p.mutex);
    // The scheduler asks many times and says nothing of calls: each reason is told once.
    if (p.declined.insert(why).second && !p.config.quiet) std::fprintf(stderr, "lacuna: left to llama.cpp: %s\n", why);
  } else if (op->view_src && op->data) {
    // Somebody else will write this cache in place, and no hook will fire: never trust a side copy again.
    if (CacheTensor* cache = cache_of(*op)) cache->foreign = true;
  }
  return false;
}

Device* make_device(Plugin& p) {
  Device& d = p.device;
  d.registry = &p.registry;
  d.calls.get_name = [](Device*) { return "Lacuna"; };
  d.calls.get_description = [](Device*) { return "Lacuna sparse attention (CPU)"; };
  d.calls.get_memory = get_memory;
  d.calls.get_type = device_type;
  d.calls.get_props = get_props;
  d.calls.init_backend = init_backend;
  // An accelerator shares the CPU's buffers: only then does the scheduler move a node to it.
  d.calls.get_buffer_type = [](Device* self) { return plugin().own_buffers ? own_buffer_type(self) : api().cpu_buffer_type(); };
  d.calls.supports_op = supports_op;
  d.calls.supports_buft = [](Device*, BufferType* type) { return api().buft_is_host(type); };
  d.calls.offload_op = [](Device*, const Tensor*) { return false; };
  return &d;
}

// ---- functions for applications, got by name ----

const char* configure(const char* text) {
  static std::string error;
  Plugin& p = plugin();
  auto config = parse_config(text ? text : "");
  const std::lock_guard lock(p.mutex);
  if (!config.ok()) {
    error = config.error().what;
    return error.c_str();
  }
  p.config = std::move(config.value());
  return nullptr;
}

const char* report() {
  static std::string text;
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  text = p.latest ? full_report(*p.latest) : p.last_report;
  return text.empty() ? nullptr : text.c_str();
}

void reset_report() {
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  p.declined.clear();
  if (p.latest) p.latest->reset_report();
}

void announce(int n_layers, long long prompt_tokens) {
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  p.announced_layers = n_layers;
  p.announced_tokens = prompt_tokens;
  if (p.latest) p.latest->announce(n_layers, prompt_tokens);
}

// The state of a calibration, or what it found if `finish`; null with *error set where there is none. The
// texts stay until the next call.
const char* calibration(bool finish, const char** error) {
  static std::string text, why;
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  const auto got = !p.latest ? Result<std::string>(bad_argument("no context is open")) :
                   finish ? p.latest->session().finish_calibration() : p.latest->session().calibration();
  (got.ok() ? text : why) = got.ok() ? got.value() : got.error().what;
  *error = got.ok() ? nullptr : why.c_str();
  return got.ok() ? text.c_str() : nullptr;
}

const char* load_calibration(const char* text) {
  static std::string why;
  Plugin& p = plugin();
  const std::lock_guard lock(p.mutex);
  const lacuna::Status done = !p.latest ? bad_argument("no context is open") : p.latest->session().load_calibration(text ? text : "");
  if (done.ok()) return nullptr;
  why = done.error().what;
  return why.c_str();
}

// For tests: null, or the first difference between a side copy and one made anew from the cache.
const char* verify_side_copies() {
  static std::string text;
  text = verify_side();
  return text.empty() ? nullptr : text.c_str();
}

void* get_proc_address(Registry*, const char* name) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("ggml_backend_set_n_threads")) return reinterpret_cast<void*>(set_n_threads);
  if (is("lacuna_configure")) return reinterpret_cast<void*>(configure);
  if (is("lacuna_report")) return reinterpret_cast<void*>(report);
  if (is("lacuna_reset_report")) return reinterpret_cast<void*>(reset_report);
  if (is("lacuna_verify_side")) return reinterpret_cast<void*>(verify_side_copies);
  if (is("lacuna_announce")) return reinterpret_cast<void*>(announce);
  if (is("lacuna_calibration")) return reinterpret_cast<void*>(calibration);
  if (is("lacuna_load_calibration")) return reinterpret_cast<void*>(load_calibration);
  return nullptr;
}

bool other_gpu_there() {
  const Api& g = api();
  if (!g.dev_count || !g.dev_get) return false;
  for (std::size_t i = 0; i < g.dev_count(); ++i)
    if (const int type = g.dev_type(g.dev_get(i)); type == device_gpu || type == device_igpu) return true;
  return false;
}

// Everything that can go wrong before ggml counts on us; "" if nothing did.
std::string prepare() {
  if (const std::string& wrong = load_api(); !wrong.empty()) return wrong;
  const char* text = std::getenv("LACUNA");
  auto config = parse_config(text ? text : "");
  if (!config.ok()) return "LACUNA: " + config.error().what;
  plugin().config = std::move(config.value());
  return "";
}

const std::string& prepared() {
  static const std::string error = [] {
    std::string e = prepare();
    if (!e.empty()) std::fprintf(stderr, "lacuna: %s; llama.cpp runs without Lacuna\n", e.c_str());
    return e;
  }();
  return error;
}

}  // namespace
}  // namespace lacuna::ggml

using lacuna::ggml::plugin;

extern "C" __attribute__((visibility("default"))) int ggml_backend_score() {
  return lacuna::ggml::prepared().empty() ? 1 : 0;
}

// For `lacuna doctor`, which has a version and no ggml loaded.
extern "C" __attribute__((visibility("default"))) int lacuna_takes_ggml(const char* version) {
  return lacuna::ggml::supported(version);
}

extern "C" __attribute__((visibility("default"))) lacuna::ggml::Registry* ggml_backend_init() {
  if (!lacuna::ggml::prepared().empty()) return nullptr;
  auto& p = plugin();
  p.own_buffers = p.config.device == "gpu" || (p.config.device == "auto" && !lacuna::ggml::other_gpu_there());
  p.registry.api_version = lacuna::ggml::kApiVersion;
  p.registry.calls.get_name = [](lacuna::ggml::Registry*) { return "Lacuna"; };
  p.registry.calls.get_device_count = [](lacuna::ggml::Registry*) { return std::size_t{1}; };
  p.registry.calls.get_device = [](lacuna::ggml::Registry*, std::size_t i) { return i == 0 ? make_device(plugin()) : nullptr; };
  p.registry.calls.get_proc_address = lacuna::ggml::get_proc_address;
  make_device(p);
  return &p.registry;
}
