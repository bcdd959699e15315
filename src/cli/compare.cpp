// SPDX-License-Identifier: Apache-2.0
// lacuna compare: one text with stock llama.cpp, with Lacuna dense, and with each method, at one or several lengths.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/compare_document.h"
#include "cli/compare_figures.h"
#include "cli/compare_html.h"
#include "cli/compare_runs.h"
#include "cli/compare_table.h"
#include "cli/compare_texts.h"
#include "cli/lengths.h"
#include "cli/model.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Outputs {
  JsonSink json;
  std::string html;

  // Finds out early whether both can be written.
  std::string check() const {
    if (const std::string why = json.check(); !why.empty()) return why;
    if (!html.empty() && json.is(html)) return fmt::format("--html {}: is the file of --json", html);
    return html.empty() ? "" : check_writable("--html", html);
  }
  std::string write_page(const Json& document) const {
    const std::string why = html.empty() ? "" : write_text(html, compare_html(document));
    return why.empty() ? "" : fmt::format("--html {}: cannot write ({})", html, why);
  }
  // Both as they are now; what goes to stdout waits for the end.
  std::string write_files(const Json& document) const {
    const std::string why = json.wanted() && !json.on_stdout() ? json.write(document) : "";
    const std::string of_page = write_page(document);
    return why.empty() ? of_page : why;
  }
};

int compare(const std::vector<CompareText>& texts, int rounds, bool kl, const Outputs& to, Json& document) {
  catch_interrupt();
  make_runs(texts, rounds, kl, document, [&] {
    // Whatever ends this process, what was found is kept. A file that cannot be written is told at the end.
    mark_partial(document, true, false);
    (void)to.write_files(document);
  });
  mark_partial(document, false, interrupted());
  if (!to.json.on_stdout())
    fmt::print("\n{}", compare_text(document));
  else if (const std::string why = to.json.write(document); !why.empty())
    return bad_input(why);
  if (const std::string why = to.write_files(document); !why.empty()) return bad_input(why);
  const int done = count_runs(document, kDone), all = static_cast<int>(texts.size() * document["methods"].size());
  if (interrupted()) return stopped(done, "runs");
  return done == all ? kOk : done > 0 ? kFailedCheck : kBadInput;  // each run said why
}

// The page, and what is printed, of a file that --json wrote.
int show_again(const std::string& from, const Outputs& to) {
  Json document;
  std::string error;
  if (!read_document(from, document, error)) return bad_input(error);
  try {
    if (const std::string why = to.write_page(document); !why.empty()) return bad_input(why);
    fmt::print("{}", compare_text(document));
  } catch (const Json::exception& e) {  // a field of another kind than compare writes
    return bad_input(fmt::format("{}: is damaged: {}", from, one_line(e.what(), 200)));
  }
  return kOk;
}

}  // namespace

int verb_compare(int argc, char** argv) {
  CLI::App app("The same text with stock llama.cpp, with Lacuna dense, and with each method.", "compare");
  RunOptions o;
  o.predict = 32;
  Outputs to;
  std::string list, lengths_words, from;
  int rounds = 1;
  bool no_kl = false;
  app.add_option("--methods", list, "method specs, separated by commas; stock and dense always run")
      ->type_name("A,B,C");
  app.add_option("--lengths", lengths_words,
                 "cut the text to so many tokens (k = 1024) and do all of it at each length")
      ->type_name("1k,2k,...");
  app.add_option("--runs", rounds, "runs of each; the one with the median time counts")
      ->check(CLI::Range(1, 99))
      ->capture_default_str();
  app.add_flag("--no-kl", no_kl, "leave out the pass that compares logits");
  app.add_option("--html", to.html, "also write a page with pictures: one file that needs no network")
      ->type_name("FILE");
  app.add_option("--from", from, "run nothing: show what --json wrote, with --html as a page")->type_name("FILE");
  add_run_options(app, o);
  app.get_option("--model")->required(false);
  to.json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (!from.empty()) {
    if (to.json.wanted() || !o.model.empty()) return bad_input("--from: shows a file; it takes no --json and no model");
    if (const std::string why = to.check(); !why.empty()) return bad_input(why);
    return show_again(from, to);
  }
  if (o.model.empty()) return bad_input("--model is required; 'lacuna compare --help' shows what it takes");
  for (const std::string& why : {check_run_options(o), to.check()})
    if (!why.empty()) return bad_input(why);
  if (o.file == "-") return bad_input("-f -: compare reads the text once per run; give it as a file");
  o.patterns = !to.html.empty() && o.audit != "off";
  std::vector<int> lengths;
  std::string error;
  if (!lengths_words.empty() && !parse_lengths(lengths_words, lengths, error)) return bad_input(error);
  if (!lengths.empty() && o.file.empty()) return bad_input("--lengths: needs a text to cut (-f FILE)");
  std::vector<std::string> methods = {"stock", "dense"};
  for (const std::string& spec : split_methods(list)) {
    for (const std::string& why : {check_method(spec), check_profiles(spec, o.model)})
      if (!why.empty()) return bad_input(why);
    if (std::find(methods.begin(), methods.end(), spec) == methods.end()) methods.push_back(spec);
  }
  std::vector<CompareText> texts;
  if (!make_compare_texts(o, lengths, texts, error)) return bad_input(error);
  Json document = new_document(o, texts, methods, rounds);
  return compare(texts, rounds, !no_kl, to, document);
}

}  // namespace lacuna::cli
