// SPDX-License-Identifier: Apache-2.0
// lacuna compare: one text with stock llama.cpp, with Lacuna dense, and with each method, at one or several lengths.
#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/compare/document.h"
#include "cli/compare/figures.h"
#include "cli/compare/page.h"
#include "cli/compare/runs.h"
#include "cli/compare/table.h"
#include "cli/compare/texts.h"
#include "cli/lengths.h"
#include "cli/llama/model.h"
#include "cli/task/figures.h"
#include "cli/task/runs.h"
#include "cli/task/sets.h"
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

// `make` makes the runs of a new document, and says when something new stands in it.
int compare(const std::function<void(Json& document, const std::function<void()>& changed)>& make, const Outputs& to,
            Json& document) {
  catch_interrupt();
  make(document, [&] {
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
  const int done = count_runs(document, kDone);
  const int all = static_cast<int>(document["lengths"].size() * document["methods"].size());
  if (interrupted()) return stopped(done, "runs");
  return done == all ? kOk : done > 0 ? kFailedCheck : kBadInput;  // each run said why
}

// The page, and what is printed, of a file that --json wrote.
int show_again(const std::string& from, const Outputs& to) {
  Json document;
  std::string error;
  if (!read_document(from, document, error)) return bad_input(error);
  try {
    const std::string text = compare_text(document);
    if (const std::string why = to.write_page(document); !why.empty()) return bad_input(why);
    fmt::print("{}", text);
  } catch (const Json::exception& e) {  // a field of another kind than compare writes
    return bad_input(fmt::format("{}: is damaged: {}", from, one_line(e.what(), 200)));
  }
  return kOk;
}

struct Words {
  std::string methods, profile, lengths, from;
  int rounds = 1;
  bool no_kl = false;
  task::TaskOptions task;
};

void add_options(CLI::App& app, RunOptions& o, Words& words, Outputs& to) {
  app.add_option("--methods", words.methods,
                 "method specs, separated by commas; dense always runs, stock too but for --task")
      ->type_name("A,B,C");
  app.add_option("--profile", words.profile, "a profile of tune or calibrate: one method more, with it")->type_name("FILE");
  app.add_option(
         "--lengths", words.lengths,
         "cut the text to so many tokens (k = 1024) and do all of it at each length; of a task, all a sample takes")
      ->type_name("1k,2k,...");
  app.add_option("--task", words.task.name, "run a task: a name ('lacuna list --tasks'), or samples in a file *.jsonl")
      ->type_name("NAME|FILE");
  app.add_option("--samples", words.task.samples, "samples of a task at each length; 0 = 5, or all of a file")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  app.add_option("--runs", words.rounds, "runs of each; the one with the median time counts")
      ->check(CLI::Range(1, 99))
      ->capture_default_str();
  app.add_flag("--no-kl", words.no_kl, "leave out the pass that compares logits");
  app.add_option("--html", to.html, "also write a page with pictures: one file that needs no network")
      ->type_name("FILE");
  app.add_option("--from", words.from, "run nothing: show what --json wrote, with --html as a page")->type_name("FILE");
  add_run_options(app, o);
  app.get_option("--model")->required(false);
  to.json.add_option(app);
}

// "" or what does not go together with a task. Says which text it takes.
std::string check_task_options(RunOptions& o, const Words& words) {
  if (const std::string why = task::check_task(words.task); !why.empty()) return why;
  if (!o.prompt.empty()) return "-p: a task asks its own questions";
  if (words.rounds > 1) return "--runs: a task has samples instead (--samples)";
  if (!task::is_task_file(words.task.name)) {
    if (o.file.empty()) o.file = task::default_text(o.model);
    return o.file.empty() ? "no text to make samples of: give -f FILE ('make demo' fetches models/texts/demo.txt)" : "";
  }
  if (!o.file.empty()) return fmt::format("-f {}: the samples of {} have texts of their own", o.file, words.task.name);
  if (!words.lengths.empty())
    return fmt::format("--lengths: the samples of {} are as long as they are", words.task.name);
  o.file = words.task.name;
  return "";
}

// False, with `error`, at the first that is none.
bool read_methods(const std::string& list, const std::string& model, std::vector<std::string>& methods,
                  std::string& error) {
  for (const std::string& spec : split_methods(list)) {
    for (const std::string& why : {check_method(spec), check_profiles(spec, model)})
      if (!why.empty()) {
        error = why;
        return false;
      }
    if (std::find(methods.begin(), methods.end(), spec) == methods.end()) methods.push_back(spec);
  }
  return true;
}

int compare_task(const RunOptions& o, const Words& words, const std::vector<int>& lengths,
                 const std::vector<std::string>& methods, const Outputs& to) {
  task::TaskSets sets;
  std::string error;
  if (!make_task_sets(o, words.task, lengths, sets, error)) return bad_input(error);
  Json document = new_document(o, sets.texts, methods, 1);
  document["task"] = sets.about;
  for (std::size_t i = 0; i < sets.samples.size(); ++i)
    document["lengths"][i]["samples"] = task::samples_json(sets.samples[i]);
  return compare([&](Json& d, const auto& changed) { make_task_runs(sets, !words.no_kl, d, changed); }, to, document);
}

int compare_text_of(const RunOptions& o, const Words& words, const std::vector<int>& lengths,
                    const std::vector<std::string>& methods, const Outputs& to) {
  std::vector<CompareText> texts;
  std::string error;
  if (!make_compare_texts(o, lengths, texts, error)) return bad_input(error);
  Json document = new_document(o, texts, methods, words.rounds);
  return compare([&](Json& d, const auto& changed) { make_runs(texts, words.rounds, !words.no_kl, d, changed); }, to,
                 document);
}

}  // namespace

int verb_compare(int argc, char** argv) {
  CLI::App app("The same text, or a task, with stock llama.cpp, with Lacuna dense, and with each method.", "compare");
  RunOptions o;
  o.predict = 32;
  Outputs to;
  Words words;
  add_options(app, o, words, to);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (!words.from.empty()) {
    if (to.json.wanted() || !o.model.empty()) return bad_input("--from: shows a file; it takes no --json and no model");
    if (const std::string why = to.check(); !why.empty()) return bad_input(why);
    return show_again(words.from, to);
  }
  if (o.model.empty()) return bad_input("--model is required; 'lacuna compare --help' shows what it takes");
  const bool task = !words.task.name.empty();
  words.task.answers = app.get_option("--predict")->count() > 0;
  if (!task && words.task.samples > 0) return bad_input("--samples: only a task has them (--task)");
  if (o.file == "-") return bad_input("-f -: compare reads the text once per run; give it as a file");
  for (const std::string& why : {task ? check_task_options(o, words) : "", check_run_options(o), to.check()})
    if (!why.empty()) return bad_input(why);
  std::vector<int> lengths;
  std::string error;
  if (!words.lengths.empty() && !parse_lengths(words.lengths, lengths, error)) return bad_input(error);
  if (!lengths.empty() && o.file.empty()) return bad_input("--lengths: needs a text to cut (-f FILE)");
  std::vector<std::string> methods =
      task ? std::vector<std::string>{"dense"} : std::vector<std::string>{"stock", "dense"};
  std::string list = words.methods, tuned;
  if (const std::string why = take_profile(words.profile, false, tuned); !why.empty()) return bad_input(why);
  if (!tuned.empty()) list += "," + tuned;
  if (!read_methods(list, o.model, methods, error)) return bad_input(error);
  o.patterns = !task && !to.html.empty() && o.audit != "off";
  return (task ? compare_task : compare_text_of)(o, words, lengths, methods, to);
}

}  // namespace lacuna::cli
