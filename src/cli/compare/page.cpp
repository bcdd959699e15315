// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/page.h"

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/compare/table.h"
#include "cli/lengths.h"
#include "cli/page/html.h"
#include "cli/task/figures.h"
#include "cli/task/table.h"

namespace lacuna::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string name_of(const Json& run) { return html_escape(run["method"].get<std::string>()); }

// Everything of one length.
std::string table(const Json& length) {
  std::string out = "<div class=\"scroll\"><table>\n<tr>";
  for (const char* head : {"method", "first token", "against stock", "tokens/s", "density", "lost", "at most",
                           "KL to stock", "same token", "KV read / token", "memory"})
    out += fmt::format("<th>{}</th>", head);
  out += "</tr>\n";
  for (const Json& run : length["runs"]) {
    const std::string words = html_escape(state_words(run));
    if (!worked(run)) {
      out += fmt::format("<tr><td>{}</td><td class=\"words\" colspan=\"10\">{}</td></tr>\n", name_of(run), words);
      continue;
    }
    out += fmt::format("<tr><td>{}{}</td>", name_of(run),
                       words.empty() ? "" : fmt::format("<br><span class=\"faint\">{}</span>", words));
    const auto read = figure(run, "/kv_bytes_read_per_token"), memory = figure(run, "/peak_rss_bytes");
    for (const std::string& cell :
         {plain(figure(run, "/ttft_s"), "{:.2f} s"), plain(speedup(length, run), "{:.2f}x"),
          plain(figure(run, "/decode_tok_s"), "{:.1f}"), share(figure(run, "/density/prefill")), share(lost_mass(run)),
          share(figure(run, "/lost_mass/upper")), plain(figure(run, "/kl_mean"), "{:.1e}"),
          share(figure(run, "/same_top_share")), read ? human_bytes(*read) : "-", memory ? human_bytes(*memory) : "-"})
      out += fmt::format("<td>{}</td>", cell);
    out += "</tr>\n";
  }
  if (const Json& floor = length["floor"]; floor.is_object() && figure(floor, "/kl_mean"))
    out += fmt::format("<tr><td>(floor)</td><td colspan=\"6\"></td><td>{}</td><td>{}</td><td></td><td></td></tr>\n",
                       plain(figure(floor, "/kl_mean"), "{:.1e}"), share(figure(floor, "/same_top_share")));
  return out + "</table></div>\n";
}

// Speed-up and lost mass of each method at each length.
std::string lengths_section(const Json& document) {
  std::string out = "<h2>By length</h2>\n<div class=\"scroll\"><table>\n<tr><th>tokens of text</th>";
  for (const Json& length : document["lengths"]) out += fmt::format("<th>{}</th>", length_words(tokens_of(length)));
  out += "</tr>\n";
  for (const Series& s : series_of(document)) {
    out += fmt::format("<tr><td>{}</td>", html_escape(s.name));
    for (const Json& length : document["lengths"]) {
      const Json* run = run_of(length, s);
      if (!run)
        out += "<td>-</td>";
      else if (s.name == "stock")
        out += fmt::format("<td>{:.2f} s</td>", *figure(*run, "/ttft_s"));
      else
        out += fmt::format("<td>{}<br><span class=\"faint\">{}</span></td>", plain(speedup(length, *run), "{:.2f}x"),
                           share(lost_mass(*run)));
    }
    out += "</tr>\n";
  }
  out +=
      "</table></div>\n<p class=\"faint\">Stock: time to the first token. Others: how many times sooner than stock, "
      "and the lost attention mass.</p>\n";
  return out + fmt::format("<div class=\"pictures\">\n{}{}{}{}</div>\n", speedup_picture(document),
                           attention_picture(document), kv_read_picture(document), kv_memory_picture(document));
}

std::string answers(const Json& document, const Json& length) {
  std::string rows;
  for (const Series& s : series_of(document))
    if (const Json* run = run_of(length, s); run && run->contains("text") && (*run)["text"].is_string())
      rows += fmt::format("<tr><td>{}</td><td class=\"words\">{}</td></tr>\n", html_escape(s.name),
                          html_escape(one_line((*run)["text"].get<std::string>(), 600)));
  return rows.empty() ? "" : fmt::format("<h2>Answers</h2>\n<div class=\"scroll\"><table>\n{}</table></div>\n", rows);
}

std::string origin(const Json& document, const Json& length) {
  const std::string model = document["model"].get<std::string>();
  std::string kernel;
  for (const Json& run : length["runs"])
    if (worked(run) && run.contains("kernel") && run["kernel"].is_string())
      kernel = ", kernel " + run["kernel"].get<std::string>();
  return fmt::format("<p class=\"faint\">{}; {}{}; {}</p>\n", html_escape(model.substr(model.find_last_of('/') + 1)),
                     html_escape(document["host"].get<std::string>()), html_escape(kernel),
                     html_escape(document["machine"].get<std::string>()));
}

}  // namespace

std::string compare_html(const Json& document) {
  if (task::has_task(document)) return task::task_html(document);
  const Json& length = longest(document);
  const std::size_t lengths = document["lengths"].size();
  std::string body = "<h1>Lacuna: methods beside each other</h1>\n";
  if (const std::string words = partial_words(document); !words.empty())
    body += fmt::format("<p class=\"partial\">{}</p>\n", html_escape(words));
  body += fmt::format("<p>{}</p>\n", html_escape(compare_sentence(length))) + origin(document, length);
  if (lengths > 1) body += lengths_section(document);
  body += fmt::format("<h2>{} tokens of text, {} with question and template</h2>\n", length_words(tokens_of(length)),
                      length_words(static_cast<long long>(*figure(length, "/prompt_tokens"))));
  body += table(length);
  body +=
      "<p class=\"faint\">lost: mean attention mass left out, of the prompt or while writing, whichever is more; at "
      "most: a bound of the "
      "prompt's mean, with 95 % confidence. KL and same token: against stock llama.cpp; floor: stock without flash "
      "attention.</p>\n";
  body +=
      fmt::format("<div class=\"pictures\">\n{}{}{}{}</div>\n", time_picture(document, length),
                  steps_picture(document, length), loss_picture(document, length), density_picture(document, length));
  if (const std::string maps = heads_picture(document, length) + pattern_pictures(document, length); !maps.empty())
    body += fmt::format("<h2>What was kept</h2>\n<div class=\"pictures\">\n{}</div>\n", maps);
  body += answers(document, length);
  if (lengths > 1) {
    body += "<h2>The other lengths</h2>\n";
    for (const Json& other : document["lengths"])
      if (&other != &length)
        body += fmt::format("<h3>{} tokens of text</h3>\n{}", length_words(tokens_of(other)), table(other));
  }
  return html_page("Lacuna: methods beside each other", body);
}

}  // namespace lacuna::cli
