// SPDX-License-Identifier: Apache-2.0
#include "cli/llama/plugin.h"

#include <filesystem>

#include <fmt/format.h>

#include "cli/llama/model.h"

namespace lacuna::cli {

std::string Plugin::load() {
  const auto path = std::filesystem::path(own_path()).parent_path() / "liblacuna-ggml.so";
  std::error_code bad;
  if (!std::filesystem::exists(path, bad))
    return fmt::format("{}: the plug-in is not there; 'make build' makes it, --method stock does without", path.string());
  reg_ = ggml_backend_load(path.c_str());
  if (!reg_) return fmt::format("{}: llama.cpp does not load the plug-in: {}", path.string(), last_log_errors());
  const auto find = [this]<class F>(F& function, const char* name) {
    function = reinterpret_cast<F>(ggml_backend_reg_get_proc_address(reg_, name));
    return function != nullptr;
  };
  if (find(configure_, "lacuna_configure") && find(report_, "lacuna_report") && find(reset_, "lacuna_reset_report") &&
      find(announce_, "lacuna_announce") && find(calibration_, "lacuna_calibration") &&
      find(load_calibration_, "lacuna_load_calibration"))
    return "";
  return fmt::format("{}: the plug-in is of another version than this program; build both together", path.string());
}

std::string Plugin::configure(const std::string& text) const {
  const char* error = configure_(text.c_str());
  return error ? error : "";
}

nlohmann::json Plugin::report() const {
  const char* text = report_();
  if (!text) return nullptr;
  auto report = nlohmann::json::parse(text, nullptr, false);
  return report.is_object() ? report : nlohmann::json();
}

void Plugin::reset_report() const { reset_(); }
void Plugin::announce(int n_layers, long long prompt_tokens) const { announce_(n_layers, prompt_tokens); }

std::string Plugin::calibration(bool finish, std::string& error) const {
  const char* why = nullptr;
  const char* text = calibration_(finish, &why);
  if (why) error = why;
  return text ? text : "";
}

std::string Plugin::load_calibration(const std::string& state) const {
  const char* error = load_calibration_(state.c_str());
  return error ? error : "";
}

std::vector<ggml_backend_dev_t> Plugin::devices() const {
  std::vector<ggml_backend_dev_t> out;
  for (std::size_t i = 0; i < ggml_backend_reg_dev_count(reg_); ++i) {
    const ggml_backend_dev_t device = ggml_backend_reg_dev_get(reg_, i);
    // An ACCEL device joins every context by itself and may not be listed.
    if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_ACCEL) out.push_back(device);
  }
  return out;
}

}  // namespace lacuna::cli
