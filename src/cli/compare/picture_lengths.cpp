// SPDX-License-Identifier: Apache-2.0
// Figures of each method against the length of the text.
#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

std::string speedup_picture(const Json& document) {
  return lines_picture(document, {.id = "speed-up",
                                  .title = "Speed-up of the first token",
                                  .what = "Lines: how many times sooner than stock the first token came, for each "
                                          "method against the length of the text.",
                                  .caption = "How many times sooner than stock llama.cpp.",
                                  .value = speedup,
                                  .unit = "x",
                                  .ideal = 1,
                                  .from_zero = false,
                                  .cross = true,
                                  .without_stock = true});
}

std::string attention_picture(const Json& document) {
  const auto value = [](const Json& length, const Json& run) -> std::optional<double> {
    const Json* dense = find_run(length, "dense");
    const auto ours = attention_seconds(run), theirs = dense ? attention_seconds(*dense) : std::nullopt;
    return ours && theirs ? std::optional(*ours / *theirs) : std::nullopt;
  };
  return lines_picture(
      document,
      {.id = "attention",
       .title = "Attention time, as a share of dense",
       .what = "Lines: seconds of attention in the prompt over those of dense, for each method against the length of "
               "the text.",
       .caption =
           "Attention in the prompt, choosing included, over Lacuna's own dense attention. Below 1: leaving out pays.",
       .value = value,
       .ideal = 1,
       .from_zero = false,
       .without_stock = true});
}

std::string kv_read_picture(const Json& document) {
  return lines_picture(
      document,
      {.id = "kv-read",
       .title = "KV bytes read per written token",
       .what = "Lines: bytes of K and V read for each generated token, for each method against the length of the text.",
       .caption = "What attention reads of K and V in one step of writing, all layers. Stock's is not counted; it "
                  "reads all, as dense does.",
       .value = [](const Json&, const Json& run) { return figure(run, "/kv_bytes_read_per_token"); },
       .bytes = true});
}

std::string kv_memory_picture(const Json& document) {
  const auto value = [](const Json& length, const Json& run) -> std::optional<double> {
    const auto cache = figure(length, "/kv_cache_bytes"), side = figure(run, "/side_bytes");
    return cache && (side || run["method"] == "stock") ? std::optional(*cache + side.value_or(0)) : std::nullopt;
  };
  return lines_picture(
      document,
      {.id = "kv-memory",
       .title = "KV memory",
       .what = "Lines: bytes of the KV cache and of what a method keeps beside it, against the length of the text.",
       .caption = "llama.cpp's cache of the whole context (stock), and with what Lacuna keeps beside it: keys and "
                  "values in the order kernels read, and a method's own data.",
       .value = value,
       .bytes = true});
}

}  // namespace lacuna::cli
