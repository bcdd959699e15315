// SPDX-License-Identifier: Apache-2.0
// The page of a task: scores by length, the map by depth, and every answer.
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/figures.h"
#include "cli/compare/series.h"
#include "cli/lengths.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"
#include "cli/task/figures.h"
#include "cli/task/table.h"

namespace lacuna::cli::task {

namespace {

using Json = nlohmann::ordered_json;

std::string cell(std::string_view words) { return fmt::format("<td>{}</td>", html_escape(words)); }

std::string by_length(const Json& document) {
  std::string out = "<h2>By length</h2>\n<div class=\"scroll\"><table>\n<tr><th>tokens</th>";
  for (const Json& length : document["lengths"]) out += fmt::format("<th>{}</th>", length_words(tokens_of(length)));
  out += "</tr>\n";
  for (const Series& s : series_of(document)) {
    out += "<tr>" + cell(s.name);
    for (const Json& length : document["lengths"]) {
      const Json* run = run_of(length, s);
      out += run ? fmt::format("<td>{}<br><span class=\"faint\">{}</span></td>", score_words(document, *run),
                               agreement_words(*run))
                 : "<td>-</td>";
    }
    out += "</tr>\n";
  }
  return out + "</table></div>\n<p class=\"faint\">The score, and the agreement with dense's answers.</p>\n";
}

std::string lines(const Json& document) {
  const bool perplexity = of_perplexity(document);
  const auto in_percent = [](const char* field, double scale) {
    return [field, scale](const Json&, const Json& run) -> std::optional<double> {
      const auto x = figure(run, field);
      return x ? std::optional(scale * *x) : std::nullopt;
    };
  };
  return lines_picture(document, {.id = "score",
                                  .title = perplexity ? "Perplexity" : "Score",
                                  .what = "Lines: the score of each method against the length.",
                                  .caption = perplexity ? "Lower is better." : "Mean over the samples of a length.",
                                  .value = in_percent("/score", perplexity ? 1 : 100),
                                  .axis = "tokens",
                                  .unit = perplexity ? "" : " %",
                                  .from_zero = !perplexity}) +
         lines_picture(document, {.id = "agreement",
                                  .title = "Agreement with dense",
                                  .what = "Lines: how like dense's the answers of each method are, against the length.",
                                  .caption = perplexity ? "Positions at which dense finds the same token likeliest."
                                                        : "Words shared with dense's answers (F1): where a model fails "
                                                          "by itself, this still tells what a method changed.",
                                  .value = in_percent("/agreement", 100),
                                  .axis = "tokens",
                                  .unit = " %"});
}

std::string maps(const Json& document) {
  std::string out;
  for (const Series& method : series_of(document)) out += depth_picture(document, method);
  if (out.empty()) return "";
  return "<h2>By depth</h2>\n<p class=\"faint\">Scores in %: length to the right, depth of the answer in the text "
         "down.</p>\n<div class=\"pictures\">\n" +
         out + "</div>\n";
}

std::string table(const Json& document, const Json& length) {
  std::string out = "<div class=\"scroll\"><table>\n<tr>";
  for (const char* head : {"method", "score", "agrees with dense", "same answers", "KL to stock", "same token",
                           "density", "lost", "first token"})
    out += fmt::format("<th>{}</th>", head);
  out += "</tr>\n";
  for (const Json& run : length["runs"]) {
    const std::string words = state_words(run), name = run["method"].get<std::string>();
    if (!worked(run)) {
      out += "<tr>" + cell(name) + fmt::format("<td class=\"words\" colspan=\"8\">{}</td></tr>\n", html_escape(words));
      continue;
    }
    out += fmt::format("<tr><td>{}{}</td>", html_escape(name),
                       words.empty() ? "" : fmt::format("<br><span class=\"faint\">{}</span>", html_escape(words)));
    for (const std::string& c :
         {score_words(document, run), agreement_words(run), share(figure(run, "/same_answers")),
          plain(figure(run, "/kl_mean"), "{:.1e}"), share(figure(run, "/same_top_share")),
          share(figure(run, "/density/prefill")), share(lost_mass(run)), plain(figure(run, "/ttft_s"), "{:.2f} s")})
      out += cell(c);
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string wanted(const Json& turn) {
  std::string out;
  for (const Json& answer : turn.at("answers")) out += (out.empty() ? "" : ", ") + answer.get<std::string>();
  return out;
}

std::string words_cell(const std::string& words, std::string_view kind) {
  return fmt::format("<td class=\"words{}\">{}</td>", kind, html_escape(one_line(words, 160)));
}

// Rows: questions; columns: what each method answered.
std::string answers(const Json& document, const Json& length) {
  if (of_perplexity(document) || !length.contains("samples")) return "";
  std::string out =
      "<h3>Answers</h3>\n<div class=\"scroll\"><table>\n<tr><th>question</th><th class=\"words short\">right</th>";
  for (const Series& s : series_of(document))
    if (run_of(length, s)) out += fmt::format("<th class=\"words short\">{}</th>", html_escape(s.name));
  out += "</tr>\n";
  for (std::size_t i = 0; i < length["samples"].size(); ++i) {
    const Json& turns = length["samples"][i].at("turns");
    for (std::size_t t = 0; t < turns.size(); ++t) {
      out +=
          "<tr>" + words_cell(turns[t].at("question").get<std::string>(), "") + words_cell(wanted(turns[t]), " short");
      for (const Series& s : series_of(document)) {
        const Json* run = run_of(length, s);
        if (!run) continue;
        const bool answered = run->contains("samples") && i < (*run)["samples"].size();
        out += words_cell(answered ? (*run)["samples"][i].at("answers").at(t).get<std::string>() : "-", " short");
      }
      out += "</tr>\n";
    }
  }
  return out + "</table></div>\n";
}

// What the task is, where it comes from, and how much of it was run.
std::string about(const Json& document) {
  const Json& task = document["task"];
  std::string out = task.at("name").get<std::string>() + ": " + task.at("summary").get<std::string>();
  if (task.at("paper").is_string()) out += fmt::format(" ({})", task["paper"].get<std::string>());
  out += fmt::format("; {} samples", task.at("samples").get<int>());
  if (document["lengths"].size() > 1) out += " of each length";
  if (task.at("seed").is_number()) out += fmt::format(", seed {}", task["seed"].get<unsigned long long>());
  return out;
}

}  // namespace

std::string task_html(const Json& document) {
  const Json& task = document["task"];
  const Json& last = longest(document);
  const std::string title = fmt::format("Lacuna: {} by method", task.at("name").get<std::string>());
  const std::string model = document["model"].get<std::string>();
  std::string body = fmt::format("<h1>{}</h1>\n", html_escape(title));
  if (const std::string words = partial_words(document); !words.empty())
    body += fmt::format("<p class=\"partial\">{}</p>\n", html_escape(words));
  body += fmt::format(
      "<p>{}</p>\n<p class=\"faint\">{}<br>{}; {}; {}</p>\n", html_escape(task_sentence(document, last)),
      html_escape(about(document)), html_escape(model.substr(model.find_last_of('/') + 1)),
      html_escape(document["host"].get<std::string>()), html_escape(document["machine"].get<std::string>()));
  if (document["lengths"].size() > 1)
    body += by_length(document) + "<div class=\"pictures\">\n" + lines(document) + "</div>\n";
  body += maps(document);
  const Json& lengths = document["lengths"];
  for (auto length = lengths.rbegin(); length != lengths.rend(); ++length)
    body += fmt::format("<h2>{} tokens</h2>\n", length_words(tokens_of(*length))) + table(document, *length) +
            answers(document, *length);
  return html_page(title, body);
}

}  // namespace lacuna::cli::task
