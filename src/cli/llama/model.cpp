// SPDX-License-Identifier: Apache-2.0
#include "cli/llama/model.h"

#include <dlfcn.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include <fmt/format.h>
#include <ggml-backend.h>

namespace lacuna::cli {

namespace {

namespace fs = std::filesystem;

// llama.cpp logs from the thread that calls it and, while loading, from others.
struct Log {
  std::mutex mutex;
  std::deque<std::string> errors;  // the last few whole error lines
  std::string line;
  ggml_log_level level = GGML_LOG_LEVEL_NONE;  // of `line`; CONT pieces inherit it
  bool verbose = false;
};
Log& the_log() {
  static Log log;
  return log;
}

void on_log(ggml_log_level level, const char* text, void*) {
  Log& log = the_log();
  const std::lock_guard<std::mutex> lock(log.mutex);
  if (log.verbose) std::fputs(text, stderr);
  if (level != GGML_LOG_LEVEL_CONT) log.level = level;
  for (const char* c = text; *c; ++c) {
    if (*c != '\n') {
      log.line += *c;
      continue;
    }
    if (log.level == GGML_LOG_LEVEL_ERROR && !log.line.empty()) log.errors.push_back(log.line);
    if (log.errors.size() > 3) log.errors.pop_front();
    log.line.clear();
  }
}

bool holds_backends(const fs::path& folder) {
  std::error_code bad;
  for (const auto& entry : fs::directory_iterator(folder, bad))
    if (entry.path().filename().string().starts_with("libggml-cpu")) return true;
  return false;
}

volatile std::sig_atomic_t stop_asked = 0;
void on_interrupt(int) { stop_asked = 1; }

}  // namespace

void keep_log(bool verbose) {
  the_log().verbose = verbose;
  llama_log_set(on_log, nullptr);
  ggml_log_set(on_log, nullptr);
}

std::string last_log_errors() {
  Log& log = the_log();
  const std::lock_guard<std::mutex> lock(log.mutex);
  return one_line(fmt::format("{}", fmt::join(log.errors, "; ")), 400);
}

namespace {

std::string load_backends_anew() {
  // A stock run must be stock, whatever the environment asks of llama.cpp's own tools.
  if (const char* extra = std::getenv("GGML_BACKEND_PATH"); extra && std::strstr(extra, "lacuna-ggml"))
    unsetenv("GGML_BACKEND_PATH");
  std::vector<fs::path> folders;
  if (const char* dir = std::getenv("LLAMA_DIR"); dir && *dir) {
    folders.emplace_back(dir);
    folders.emplace_back(fs::path(dir) / "bin");
    folders.emplace_back(fs::path(dir) / "lib");
  }
  if (*LACUNA_LLAMA_BIN) folders.emplace_back(LACUNA_LLAMA_BIN);
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&ggml_backend_load_all_from_path), &info) && info.dli_fname)
    folders.push_back(fs::path(info.dli_fname).parent_path());
  for (const auto& folder : folders) {
    if (!holds_backends(folder)) continue;
    ggml_backend_load_all_from_path(folder.c_str());
    break;
  }
  if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) return "";  // a static build has it without loading
  return "llama.cpp's CPU backend (libggml-cpu*.so) was not found; set LLAMA_DIR to its folder, or run 'make llama build'";
}

}  // namespace

std::string load_backends() {
  static const std::string once = load_backends_anew();  // a second time would register them twice
  return once;
}

std::string host_version() {
  const std::string_view known = LACUNA_LLAMA_VERSION;
  return known.empty() ? fmt::format("llama.cpp (ggml {})", ggml_version()) : fmt::format("llama.cpp {}", known);
}

namespace {

// The plainest mistakes, which llama.cpp tells in many lines; "" if the file may be a model.
std::string check_file(const std::string& path) {
  std::error_code bad;
  if (fs::is_directory(path, bad)) return fmt::format("{}: is a folder; -m takes a GGUF file", path);
  char magic[4] = {};
  std::ifstream in(path, std::ios::binary);
  if (!in) return fmt::format("{}: cannot read the model ({}); 'make models' fetches small ones", path, std::strerror(errno));
  in.read(magic, sizeof magic);
  if (in.gcount() != sizeof magic || std::memcmp(magic, "GGUF", sizeof magic) != 0)
    return fmt::format("{}: not a GGUF file (it must begin with the letters GGUF)", path);
  return "";
}

ModelPtr load(const std::string& path, std::vector<ggml_backend_dev_t> devices, bool vocabulary_only, std::string& error) {
  if (error = check_file(path); !error.empty()) return nullptr;
  devices.push_back(nullptr);  // llama.cpp's end mark
  llama_model_params p = llama_model_default_params();
  p.devices = devices.data();
  p.vocab_only = vocabulary_only;
  p.progress_callback = [](float, void*) { return !interrupted(); };
  ModelPtr model(llama_model_load_from_file(path.c_str(), p));
  if (!model && !interrupted())
    error = fmt::format("{}: cut off, damaged, or of a kind llama.cpp does not know; fetch it anew ({})", path, last_log_errors());
  return model;
}

}  // namespace

ModelPtr load_model(const std::string& path, std::vector<ggml_backend_dev_t> devices, std::string& error) {
  return load(path, std::move(devices), false, error);
}

ModelPtr load_vocabulary(const std::string& path, std::string& error) { return load(path, {}, true, error); }

namespace {

// What the file says under a key; "" if nothing.
std::string said(const llama_model* model, const std::string& key) {
  char buffer[256];
  const int n = llama_model_meta_val_str(model, key.c_str(), buffer, sizeof buffer);
  return n < 0 ? std::string() : std::string(buffer, std::min<std::size_t>(static_cast<std::size_t>(n), sizeof buffer - 1));
}

// A number above 0 under a key of the architecture, else 0.
double number_said(const llama_model* model, const char* key) {
  const std::string value = said(model, said(model, "general.architecture") + "." + key);
  char* end = nullptr;
  const double x = std::strtod(value.c_str(), &end);  // "[9, 9, ...]", one per layer, is no number
  return !value.empty() && *end == '\0' && x > 0 && x < 1e12 ? x : 0.0;
}

}  // namespace

int trained_tokens(const llama_model* model) {
  const int known = llama_model_n_ctx_train(model);  // 0 where the vocabulary alone was loaded
  return known > 0 ? known : static_cast<int>(std::min(number_said(model, "context_length"), 1e9));
}

ModelFacts facts_of(const llama_model* model) {
  const auto figure = [model](const char* key) { return static_cast<int>(std::min(number_said(model, key), 1e9)); };
  ModelFacts f;
  f.name = one_line(said(model, "general.name"), 200);
  f.n_layers = figure("block_count");
  f.hq = figure("attention.head_count");
  f.hkv = figure("attention.head_count_kv");
  f.dk = figure("attention.key_length");
  f.dv = figure("attention.value_length");
  if (f.hq > 0 && f.dk == 0) f.dk = figure("embedding_length") / f.hq;
  if (f.hq > 0 && f.dv == 0) f.dv = figure("embedding_length") / f.hq;
  f.rope.base = number_said(model, "rope.freq_base");
  switch (llama_model_rope_type(model)) {
    case LLAMA_ROPE_TYPE_NONE: f.rope.layout = RopeLayout::none; break;
    case LLAMA_ROPE_TYPE_NORM: f.rope.layout = RopeLayout::interleaved; break;
    case LLAMA_ROPE_TYPE_NEOX:
    case LLAMA_ROPE_TYPE_MROPE:
    case LLAMA_ROPE_TYPE_IMROPE: f.rope.layout = RopeLayout::half_split; break;
    default: break;
  }
  return f;
}

std::string check_profiles(const std::string& spec, const std::string& model_path) {
  if (spec == "stock") return "";
  const auto method = make_method(spec);
  if (!method.ok()) return method.error().what;
  const auto chain = chain_of(*method.value());
  if (std::none_of(chain.begin(), chain.end(), [](const Method* m) { return m->calibrated_for(); })) return "";
  keep_log(false);
  if (!load_backends().empty()) return "";
  std::string ignored;
  const ModelPtr model = load_vocabulary(model_path, ignored);
  if (!model) return "";
  for (const Method* m : chain)
    if (m->calibrated_for())
      if (const Status fits = check_model(*m->calibrated_for(), facts_of(model.get())); !fits.ok())
        return fmt::format("{}.profile: {}", m->card().slug, fits.error().what);
  return "";
}

ggml_type cache_type(const std::string& name) {
  static const std::map<std::string, ggml_type> types = {
      {"f32", GGML_TYPE_F32},   {"f16", GGML_TYPE_F16},   {"bf16", GGML_TYPE_BF16},
      {"q8_0", GGML_TYPE_Q8_0}, {"q4_0", GGML_TYPE_Q4_0}, {"q4_1", GGML_TYPE_Q4_1},
      {"iq4_nl", GGML_TYPE_IQ4_NL}, {"q5_0", GGML_TYPE_Q5_0}, {"q5_1", GGML_TYPE_Q5_1}};
  return types.at(name);
}

ContextPtr make_context(llama_model* model, const RunOptions& o, int tokens, int batch, int ubatch, std::string& error,
                        bool flash_attention) {
  llama_context_params p = llama_context_default_params();
  p.n_ctx = static_cast<std::uint32_t>(tokens);
  p.n_batch = static_cast<std::uint32_t>(batch);
  p.n_ubatch = static_cast<std::uint32_t>(ubatch);
  p.n_threads = p.n_threads_batch = o.threads;
  p.flash_attn_type = flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  p.type_k = cache_type(o.cache_type_k);
  p.type_v = cache_type(o.cache_type_v);
  ContextPtr context(llama_init_from_model(model, p));
  if (!context) error = fmt::format("llama.cpp cannot make a context of {} tokens: {}", tokens, last_log_errors());
  return context;
}

void warm_up(llama_context* context) {
  const llama_vocab* vocab = llama_model_get_vocab(llama_get_model(context));
  llama_token pair[2] = {llama_vocab_bos(vocab), llama_vocab_eos(vocab)};
  for (llama_token& t : pair)
    if (t == LLAMA_TOKEN_NULL) t = 0;
  decode(context, pair, 2, 0, 1);
  llama_memory_clear(llama_get_memory(context), true);
  llama_synchronize(context);
}

int decode(llama_context* context, const llama_token* tokens, int count, int position, int wanted, int stride) {
  llama_batch batch = llama_batch_init(count, 0, 1);
  batch.n_tokens = count;
  for (int i = 0; i < count; ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = position + i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = position + i >= wanted && (position + i - wanted) % stride == 0;
  }
  const int code = llama_decode(context, batch);
  llama_batch_free(batch);
  return code;
}

void catch_interrupt() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return stop_asked != 0; }

}  // namespace lacuna::cli
