// SPDX-License-Identifier: Apache-2.0
#include "cli/profile/reading.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "cli/common.h"
#include "engine/registry.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kMostPartBytes = std::size_t{256} << 20;

// 64-bit FNV-1a, as text: JSON readers elsewhere know no 64-bit numbers.
std::string hash_of(const std::string& text) {
  std::uint64_t h = 14695981039346656037u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return fmt::format("{:016x}", h);
}

// What of the settings a state was made with differs from these; "" if nothing does.
std::string other_settings(const Json& was, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    const Json before = was.is_object() && was.contains(key) ? was[key] : Json();
    if (before != value)
      return fmt::format("{}: {}, now {}", key, one_line(before.dump(-1, ' ', true, Json::error_handler_t::replace), 100), one_line(value.dump(), 100));
  }
  return "";
}

// The number of prompts done that a part file has, given back to the plug-in; 0 if there is no such file.
int resume(const std::string& part, const Json& settings, const Plugin& plugin, int prompts, std::string& error) {
  std::error_code bad;
  if (!fs::exists(part, bad)) return 0;
  const auto unusable = [&](const std::string& why) {
    error = fmt::format("{}: {}; give the settings it was made with, or another -o, or remove it", part, why);
    return 0;
  };
  auto text = read_small_file(part, kMostPartBytes);
  if (!text.ok()) return unusable(text.error().what);
  auto parsed = parse_json(text.value());
  if (!parsed.ok()) return unusable(parsed.error().what);
  const Json& j = parsed.value();
  if (!j.is_object() || j.value("format", Json()) != "lacuna-calibration" || j.value("version", Json()) != 1)
    return unusable("is no calibration of this version");
  if (const std::string why = other_settings(j.value("settings", Json()), settings); !why.empty())
    return unusable("is of other settings (" + why + ")");
  auto done = as_int(j.value("done", Json()), "done", 0, prompts);
  if (!done.ok()) return unusable(done.error().what);
  if (const std::string why = plugin.load_calibration(j.value("calibration", Json()).dump()); !why.empty()) return unusable(why);
  return static_cast<int>(done.value());
}

// What the file says of the model, filled up with what the calls showed; an error where they differ.
Result<ModelFacts> joined(ModelFacts file, const ModelFacts& seen) {
  ModelFacts comparable = seen;
  comparable.n_layers = 0;  // some layers have no attention, or another's cache
  for (const std::string& d : differences(comparable, file))
    return unsupported(fmt::format("the model's file and its attention calls differ ({}): it has no one shape for a profile", d));
  if (file.n_layers < seen.n_layers) file.n_layers = seen.n_layers;
  file.hq = seen.hq;
  file.hkv = seen.hkv;
  file.dk = seen.dk;
  file.dv = seen.dv;
  if (file.rope.layout == RopeLayout::unknown)
    file.rope.layout = seen.rope.layout == RopeLayout::unknown ? RopeLayout::none : seen.rope.layout;
  if (file.rope.base == 0) file.rope.base = seen.rope.base;
  return file;
}

}  // namespace

std::string read_texts(const std::vector<std::string>& files, std::vector<std::string>& texts) {
  std::string error;
  texts.resize(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!read_text(files[i], texts[i], error)) return error;
    if (texts[i].size() > (1u << 30)) return fmt::format("-f {}: at most 1 GiB is taken", files[i]);
  }
  return "";
}

std::string cut(const llama_model* model, const std::vector<std::string>& files, const std::vector<std::string>& texts, int context,
                long long max_tokens, Prompts& out) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  const bool begins = llama_vocab_get_add_bos(vocab);
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const std::string& text = texts[t];
    std::vector<llama_token> tokens(text.size() + 8);
    const int n = llama_tokenize(vocab, text.data(), static_cast<int>(text.size()), tokens.data(), static_cast<int>(tokens.size()), false, false);
    if (n <= 0) return fmt::format("-f {}: the text is empty", files[t]);
    tokens.resize(static_cast<std::size_t>(n));
    out.texts.push_back({{"name", fs::path(files[t]).filename().string()}, {"tokens", n}, {"hash", hash_of(text)}});
    for (int at = 0; at < n;) {
      std::vector<llama_token> prompt;
      if (begins) prompt.push_back(llama_vocab_bos(vocab));
      long long room = context - static_cast<long long>(prompt.size());
      if (max_tokens > 0) room = std::min(room, max_tokens - out.tokens - static_cast<long long>(prompt.size()));
      if (room < 1) return "";  // --max-tokens is reached
      const auto count = static_cast<int>(std::min<long long>(room, n - at));
      prompt.insert(prompt.end(), tokens.begin() + at, tokens.begin() + at + count);
      at += count;
      out.tokens += static_cast<long long>(prompt.size());
      out.all.push_back(std::move(prompt));
    }
  }
  return "";
}

std::string read_prompt(llama_context* context, const std::vector<llama_token>& prompt, int ubatch, const std::function<void(int)>& progress) {
  llama_memory_clear(llama_get_memory(context), true);
  const int total = static_cast<int>(prompt.size());
  for (int at = 0; at < total && !interrupted(); at += ubatch) {
    const int count = std::min(ubatch, total - at);
    if (const int code = decode(context, &prompt[static_cast<std::size_t>(at)], count, at, total - 1))
      return fmt::format("llama_decode failed at token {} (code {}): {}", at, code, last_log_errors());
    llama_synchronize(context);
    progress(at + count);
  }
  return "";
}

int watch(llama_context* context, const Prompts& prompts, int ubatch, const Plugin& plugin, const std::string& part,
          const Json& settings, const std::string& label, int& resumed) {
  std::string error;
  const int total = static_cast<int>(prompts.all.size());
  resumed = resume(part, settings, plugin, total, error);
  if (!error.empty()) return bad_input(error);
  if (resumed > 0) note(fmt::format("{}: going on after {} of {} prompts", part, resumed, total));
  Progress bar(label, prompts.tokens, "tokens");
  long long read = 0;
  for (int i = 0; i < resumed; ++i) read += static_cast<long long>(prompts.all[static_cast<std::size_t>(i)].size());
  bar.begin_at(read);
  for (int i = resumed; i < total; ++i) {
    const auto& prompt = prompts.all[static_cast<std::size_t>(i)];
    error = read_prompt(context, prompt, ubatch, [&](int tokens) { bar.update(read + tokens); });
    if (!error.empty()) return bad_input(error);
    if (interrupted()) {  // what was seen of this prompt is in no part file
      bar.clear();
      note(fmt::format("interrupted after {} of {} prompts; {}", i, total,
                       i > 0 ? fmt::format("the same command goes on from {}", part) : "nothing is kept"));
      return kInterrupted;
    }
    const std::string state = plugin.calibration(false, error);
    if (!error.empty()) return bad_input(error);
    Json document = {{"format", "lacuna-calibration"}, {"version", 1}, {"settings", settings}, {"done", i + 1}};
    document["calibration"] = Json::parse(state, nullptr, false);
    if (const Status wrote = write_whole(part, document.dump()); !wrote.ok()) return bad_input(wrote.error().what);
    read += static_cast<long long>(prompt.size());
  }
  return -1;
}

Result<Profile> profile_of(std::string_view slug, const std::string& found, const ModelFacts& file) {
  auto parsed = parse_json(found);
  if (!parsed.ok()) return parsed.error();
  const Json& j = parsed.value();
  auto seen = model_facts(j.value("model", Json()), "model", true);
  if (!seen.ok()) return seen.error();
  auto model = joined(file, seen.value());
  if (!model.ok()) return model.error();
  Profile p;
  p.slug = slug;
  p.model = model.value();
  p.params = j.value("params", Json::object());
  p.data = j.value("data", Json::object());
  return p;
}

std::string check_output(const std::string& path) {
  std::error_code bad;
  const fs::path folder = fs::path(path).parent_path().empty() ? fs::path(".") : fs::path(path).parent_path();
  if (fs::is_directory(path, bad)) return fmt::format("-o {}: is a folder; name a file", path);
  if (!fs::is_directory(folder, bad) || access(folder.c_str(), W_OK) != 0)
    return fmt::format("-o {}: cannot write there; name a file in a writable folder", path);
  // A spec could not name it later.
  if (path.find_first_of(":,+ \t\r\n\v\f") != std::string::npos)
    return fmt::format("-o {}: a profile's path holds no ':', ',', '+' or white space; take another name", path);
  return "";
}

}  // namespace lacuna::cli
