// SPDX-License-Identifier: Apache-2.0
// A profile is a file from anywhere: here its text goes to the parser and to every method, each as its preset
// makes it and with less side data than that. What is taken can be written and read again, and what a method
// wants kept after it is what a cache can keep.
#include <fmt/format.h>

#include "engine/registry.h"
#include "engine/side.h"
#include "fuzz/fuzz.h"

namespace lacuna::fuzz {
namespace {

// Opens the side data that a method asks for after it took the profile.
std::string use(Method& method, const Profile& p) {
  const Status used = method.use(p);
  if (!used.ok()) return used.error().what.empty() ? fmt::format("{} refuses without a word", method.card().slug) : "";
  method.set_calibrated_for(p.model);
  const SideSpec side = method.side(1);
  if (side.labels > 0 && side.channels && side.label_heads != p.model.hkv)
    return fmt::format("{}: lists for {} heads, and the profile's model has {}", method.card().slug, side.label_heads,
                       p.model.hkv);
  SideStore store;
  for (const int layer : {0, 1, 2, p.model.n_layers - 1, p.model.n_layers, 4095})
    for (const int heads : {p.model.hkv, 1, 3}) {
      const int few = std::min(heads, 16), dim = std::min(p.model.dk, 64);
      store.open(method.side(layer), Dtype::f16, 40, few, dim);
      const Labels& l = store.view().labels;
      for (int i = 0; l.data && i < l.heads * l.count; ++i)
        if (l.channels[i] < 0 || l.channels[i] >= dim)
          return fmt::format("{}: layer {} keeps channel {} of {}", method.card().slug, layer, l.channels[i], dim);
    }
  return "";
}

}  // namespace

std::string profile(Bytes bytes) {
  const auto parsed = parse_profile(text_of(bytes));
  if (!parsed.ok()) return parsed.error().what.empty() ? "refused without a word" : "";
  const std::string text = profile_text(parsed.value());
  const auto again = parse_profile(text);
  if (!again.ok()) return "cannot be read again: " + again.error().what;
  if (profile_text(again.value()) != text) return "reads as another profile when written";
  if (!differences(parsed.value().model, again.value().model).empty()) return "the model changed in writing";
  for (const MethodEntry& e : all_methods())
    for (const char* params : {"", ":channels=1:layer_start=0", ":channels=1024", ":layer_start=4096"}) {
      auto made = make_method(fmt::format("{}{}", e.card->slug, params), {.lone_wrapper = true, .profiles = false});
      if (!made.ok() || e.wraps) continue;  // has no such parameter; or asks its base
      if (auto wrong = use(*made.value(), parsed.value()); !wrong.empty()) return wrong;
    }
  return "";
}

}  // namespace lacuna::fuzz

LACUNA_FUZZ_TARGET(profile)
