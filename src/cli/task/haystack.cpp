// SPDX-License-Identifier: Apache-2.0
#include "cli/task/haystack.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/task/fit.h"

namespace lacuna::cli::task {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// May a sentence begin at `at`? Behind a blank that stands behind a line or a sentence.
bool begins_sentence(std::string_view text, std::size_t at) {
  if (at == 0 || at == text.size()) return true;
  if (!is_blank(text[at - 1]) || is_blank(text[at])) return false;
  if (text[at - 1] == '\n') return true;
  return at >= 2 && (text[at - 2] == '.' || text[at - 2] == '!' || text[at - 2] == '?');
}

bool begins_word(std::string_view text, std::size_t at) {
  return at == 0 || at == text.size() || (is_blank(text[at - 1]) && !is_blank(text[at]));
}

bool begins_character(std::string_view text, std::size_t at) {
  return at == text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
}

// The place nearest to `at`, at most `reach` away, where `is_place` holds; npos if there is none.
template <class F>
std::size_t nearest(std::string_view text, std::size_t at, std::size_t reach, const F& is_place) {
  for (std::size_t away = 0; away <= reach; ++away) {
    if (away <= at && is_place(text, at - away)) return at - away;
    if (at + away <= text.size() && is_place(text, at + away)) return at + away;
  }
  return std::string_view::npos;
}

std::size_t place(std::string_view text, std::size_t at) {
  const std::size_t near = text.size() / 30 + 1;  // depth within 3 %
  if (const std::size_t found = nearest(text, at, near, begins_sentence); found != std::string_view::npos) return found;
  if (const std::size_t found = nearest(text, at, near, begins_word); found != std::string_view::npos) return found;
  return nearest(text, at, 4, begins_character);
}

// The first `size` bytes, less the word or the character that is cut.
std::string_view beginning(std::string_view text, std::size_t size) {
  if (size >= text.size()) return text;
  std::size_t end = size;
  while (end > 0 && size - end < 40 && !is_blank(text[end])) --end;
  if (end == 0 || size - end >= 40)  // no blanks in this script
    for (end = size; end > 0 && !begins_character(text, end);) --end;
  return text.substr(0, end);
}

}  // namespace

std::string hide(std::string_view text, const std::vector<Hidden>& hidden) {
  std::vector<std::pair<std::size_t, const std::string*>> places;
  for (const Hidden& h : hidden)
    places.emplace_back(place(text, static_cast<std::size_t>(std::lround(h.depth * static_cast<double>(text.size())))),
                        &h.sentence);
  std::stable_sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string out;
  std::size_t at = 0;
  for (const auto& [where, sentence] : places) {
    out += text.substr(at, where - at);
    at = where;
    if (!out.empty() && !is_blank(out.back())) out += ' ';
    out += *sentence;
    if (at < text.size()) out += at > 0 && text[at - 1] == '\n' ? '\n' : ' ';
  }
  return out.append(text.substr(at));
}

bool from_text(const Request& request, Rng& rng, const std::function<Sample(std::string_view)>& build, Sample& sample,
               std::string& error) {
  const auto piece = [&](std::string_view text) {
    return fit(request, 0, text.size(), [&](std::size_t size) { return build(beginning(text, size)); });
  };
  Fit found = piece(request.text);
  if (!found.fits || found.size == 0) {
    error = fmt::format("{} tokens do not hold the question and its answer, which take {}", request.tokens,
                        found.least_tokens);
    return false;
  }
  if (found.size == request.text.size() && !found.full) {
    error = fmt::format("the text has {} tokens, {} are needed; give a longer text or a shorter length",
                        found.tokens - found.least_tokens, request.tokens - found.least_tokens);
    return false;
  }
  // Tokens of another place may be longer: a tenth is kept free.
  const std::size_t needed = found.size + found.size / 10;
  if (needed < request.text.size()) {
    std::size_t at = static_cast<std::size_t>(rng.below(request.text.size() - needed + 1));
    at = place(request.text, at);
    if (at > 0) found = piece(request.text.substr(at));
  }
  sample = std::move(found.sample);
  return true;
}

}  // namespace lacuna::cli::task
