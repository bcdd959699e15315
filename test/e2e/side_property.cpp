// SPDX-License-Identifier: Apache-2.0
// Side copies stay exact in a real host. A seeded random walk over everything llama.cpp does to a cache
// (batches of several sequences, removal, copies, context shifts, clearing, state save and restore, reuse
// of slots), and after each step a comparison of every copy with one made anew ("lacuna_verify_side").
//
//   lacuna-side-property PLUGIN MODEL [STEPS [SEED]]      exit code 77: the model is not there
#include <ggml-backend.h>
#include <llama.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"

namespace {

constexpr int kSequences = 4, kContext = 512, kMicroBatch = 48;

using Verify = const char* (*)();
using Configure = const char* (*)(const char*);
using ReportText = const char* (*)();

struct Setting {
  const char* name;
  bool unified;
  ggml_type type;
  bool shifts;
};

struct Walk {
  llama_context* context;
  llama_memory_t memory;
  int vocabulary;
  bool shifts;
  lacuna::Rng rng;
  std::vector<std::uint8_t> whole, one;  // saved states
  std::string did;

  int below(int n) { return static_cast<int>(rng.below(static_cast<std::uint64_t>(n))); }
  int next(int s) { return llama_memory_seq_pos_max(memory, s) + 1; }

  // Up to `most` tokens for one sequence or several in turn.
  bool decode(int most) {
    const int n = 1 + below(most), mixed = below(2), only = below(kSequences);
    llama_batch batch = llama_batch_init(n, 0, 1);
    int end[kSequences];
    for (int s = 0; s < kSequences; ++s) end[s] = next(s);
    for (int i = 0; i < n; ++i) {
      const int s = mixed ? below(kSequences) : only;
      batch.token[i] = below(vocabulary);
      batch.pos[i] = end[s]++;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = s;
      batch.logits[i] = i == n - 1;
    }
    batch.n_tokens = n;
    const int code = llama_decode(context, batch);
    llama_batch_free(batch);
    did = "decode of " + std::to_string(n) + (mixed ? " for several sequences" : " for one sequence") + ", code " + std::to_string(code);
    if (code == 1) llama_memory_seq_rm(memory, below(kSequences), -1, -1);  // full: somebody has to go
    return code == 0 || code == 1;
  }

  bool step() {
    const int s = below(kSequences), n = next(s);
    switch (below(11)) {
      case 0:
        did = "seq_rm of a tail";
        llama_memory_seq_rm(memory, s, below(n + 1), -1);
        return true;
      case 1:
        did = "seq_rm of a sequence";
        llama_memory_seq_rm(memory, s, -1, -1);
        return true;
      case 2: {
        did = "seq_cp";
        const int to = (s + 1 + below(kSequences - 1)) % kSequences;
        llama_memory_seq_rm(memory, to, -1, -1);
        llama_memory_seq_cp(memory, s, to, -1, -1);
        return true;
      }
      case 3: {
        did = "context shift";
        if (n < 8 || !shifts || !llama_memory_can_shift(memory)) return true;
        const int from = below(n / 2), gone = 1 + below(n / 4);
        // Cells shared with another sequence would move for both.
        for (int other = 0; other < kSequences; ++other)
          if (other != s) llama_memory_seq_rm(memory, other, -1, -1);
        llama_memory_seq_rm(memory, s, from, from + gone);
        llama_memory_seq_add(memory, s, from + gone, -1, -gone);
        return decode(3);
      }
      case 4:
        if (below(3)) return decode(1);
        did = "clear";
        llama_memory_clear(memory, below(2));
        return true;
      case 5: {
        did = "state of a sequence, saved and restored into another";
        one.resize(llama_state_seq_get_size(context, s));
        const std::size_t used = llama_state_seq_get_data(context, one.data(), one.size(), s);
        const int to = below(kSequences);
        if (used > 0 && n > 0 && llama_state_seq_set_data(context, one.data(), used, to) == 0) llama_memory_seq_rm(memory, to, -1, -1);
        return true;
      }
      case 6:
        did = whole.empty() ? "whole state, saved" : "whole state, restored";
        if (whole.empty()) {
          whole.resize(llama_state_get_size(context));
          whole.resize(llama_state_get_data(context, whole.data(), whole.size()));
        } else {
          llama_state_set_data(context, whole.data(), whole.size());
          whole.clear();
        }
        return true;
      case 7: return decode(100);
      default: return decode(below(2) ? 1 : 20);
    }
  }
};

bool run(llama_model* model, const Setting& setting, int steps, std::uint64_t seed, Verify verify, ReportText report) {
  llama_context_params p = llama_context_default_params();
  p.n_ctx = setting.unified ? kContext : kContext * kSequences;
  p.n_batch = 256;
  p.n_ubatch = kMicroBatch;
  p.n_seq_max = kSequences;
  p.n_threads = p.n_threads_batch = 2;
  p.kv_unified = setting.unified;
  p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  p.type_k = p.type_v = setting.type;
  llama_context* context = llama_init_from_model(model, p);
  if (!context) {
    std::printf("%s: no context\n", setting.name);
    return false;
  }
  Walk walk{context, llama_get_memory(context), llama_vocab_n_tokens(llama_model_get_vocab(model)), setting.shifts,
            lacuna::Rng(seed), {}, {}, {}};
  bool good = walk.decode(60);
  for (int i = 0; i < steps && good; ++i) {
    good = walk.step();
    if (!good) std::printf("%s, seed %llu, step %d: %s failed\n", setting.name, static_cast<unsigned long long>(seed), i, walk.did.c_str());
    if (const char* wrong = good ? verify() : nullptr) {
      std::printf("%s, seed %llu, step %d, after %s: %s\n", setting.name, static_cast<unsigned long long>(seed), i, walk.did.c_str(), wrong);
      good = false;
    }
  }
  const char* text = report();  // of this context, while its cache is there
  const bool small = ggml_is_quantized(setting.type);  // nothing packed is kept beside it
  for (const char* nothing : {small ? "nothing" : "\"packed\":0,", "\"pages\":0,", "\"int4\":0,", "\"int8\":0,", "\"labels\":0,", "\"pooled\":0}"})
    if (!text || std::strstr(text, nothing)) {
      std::printf("%s: nothing was compared: %s\n", setting.name, text ? text : "no report");
      good = false;
      break;
    }
  llama_free(context);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::printf("usage: lacuna-side-property PLUGIN MODEL [STEPS [SEED]]\n");
    return 2;
  }
  const int steps = argc > 3 ? std::atoi(argv[3]) : 60;
  const std::uint64_t seed = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1;
  if (std::FILE* f = std::fopen(argv[2], "rb")) std::fclose(f);
  else {
    std::printf("skipped: no %s (make models)\n", argv[2]);
    return 77;
  }
  llama_log_set([](ggml_log_level level, const char* text, void*) { if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr); }, nullptr);
  ggml_backend_load_all_from_path(LACUNA_LLAMA_BIN);
  const ggml_backend_reg_t plugin = ggml_backend_load(argv[1]);
  if (!plugin) {
    std::printf("%s does not load\n", argv[1]);
    return 1;
  }
  const auto verify = reinterpret_cast<Verify>(ggml_backend_reg_get_proc_address(plugin, "lacuna_verify_side"));
  const auto configure = reinterpret_cast<Configure>(ggml_backend_reg_get_proc_address(plugin, "lacuna_configure"));
  const auto report = reinterpret_cast<ReportText>(ggml_backend_reg_get_proc_address(plugin, "lacuna_report"));
  if (const char* error = configure("dense side=all quiet=1")) {
    std::printf("%s\n", error);
    return 1;
  }
  ggml_backend_dev_t devices[] = {ggml_backend_reg_dev_get(plugin, 0), nullptr};
  llama_model_params p = llama_model_default_params();
  p.devices = devices;
  llama_model* model = llama_model_load_from_file(argv[2], p);
  if (!model) return 1;
  // ggml's CPU backend cannot rotate bf16: a context shift ends stock llama.cpp too. An f32 cache is cast to
  // f16 by the graph before attention: there is no copy beside it to be wrong.
  const Setting settings[] = {{"unified f16", true, GGML_TYPE_F16, true},
                              {"a stream per sequence, f16", false, GGML_TYPE_F16, true},
                              {"unified bf16", true, GGML_TYPE_BF16, false},
                              {"a stream per sequence, bf16", false, GGML_TYPE_BF16, false},
                              {"unified q8_0", true, GGML_TYPE_Q8_0, true},
                              {"a stream per sequence, q4_0", false, GGML_TYPE_Q4_0, true}};
  bool good = true;
  for (const auto& setting : settings) good = run(model, setting, steps, seed, verify, report) && good;
  std::printf("%s\n", good ? "all side copies stayed exact" : "FAILED");
  llama_model_free(model);
  return good ? 0 : 1;
}
