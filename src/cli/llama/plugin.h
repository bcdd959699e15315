// SPDX-License-Identifier: Apache-2.0
// Lacuna's own llama.cpp plug-in, as the command line drives it: by functions got by name.
#pragma once

#include <string>
#include <vector>

#include <ggml-backend.h>
#include <nlohmann/json.hpp>

namespace lacuna::cli {

class Plugin {
 public:
  // Loads liblacuna-ggml.so from beside this program; "" or the reason.
  std::string load();
  // `text`: "SPEC key=value ...", for contexts made from now on; "" or the reason.
  std::string configure(const std::string& text) const;
  // What happened since the last reset; null when the plug-in gives none.
  nlohmann::json report() const;
  void reset_report() const;
  // What some methods ask and a micro-batch does not tell: the number of layers, and how long the
  // prompt will be. Reaches the context made last and those made from now on.
  void announce(int n_layers, long long prompt_tokens) const;
  // Of a context configured with calibrate=1: its state, or what was found; "" with the reason in `error`.
  std::string calibration(bool finish, std::string& error) const;
  std::string load_calibration(const std::string& state) const;  // "" or the reason
  // The devices that take attention.
  std::vector<ggml_backend_dev_t> devices() const;

 private:
  ggml_backend_reg_t reg_ = nullptr;
  const char* (*configure_)(const char*) = nullptr;
  const char* (*report_)() = nullptr;
  void (*reset_)() = nullptr;
  void (*announce_)(int, long long) = nullptr;
  const char* (*calibration_)(bool, const char**) = nullptr;
  const char* (*load_calibration_)(const char*) = nullptr;
};

}  // namespace lacuna::cli
