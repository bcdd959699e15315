// SPDX-License-Identifier: Apache-2.0
// What every verb shares: exit codes, the one line an error gets, JSON output, the terminal, files.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

namespace lacuna::cli {

enum ExitCode : int { kOk = 0, kFailedCheck = 1, kBadInput = 2, kInterrupted = 130 };

// Prints "lacuna: WHAT" as one line on stderr and returns kBadInput, for `return bad_input(...)`.
int bad_input(std::string_view what);
// Prints "lacuna: interrupted after N UNIT" as one line on stderr and returns kInterrupted.
int stopped(long long n, std::string_view unit = "tokens");
// A remark that does not stop the run: "lacuna: note: WHAT" on stderr.
void note(std::string_view what);

// Parses a verb's arguments. llama.cpp's short names of two and three letters (-ub, -ctk, -ctv) are
// spelt out first, because CLI11 would read -ub as -u b. Returns -1 to go on, else the exit code
// (help was printed, or the arguments are wrong and one line said so).
int parse_arguments(CLI::App& app, int argc, char** argv);

// Where --json goes. "" = not asked for, "-" = stdout, else a file that appears whole or not at all.
class JsonSink {
 public:
  // Adds `--json [FILE|-]`; without a value it means stdout.
  void add_option(CLI::App& app);
  bool wanted() const { return !where_.empty(); }
  bool on_stdout() const { return where_ == "-"; }
  bool is(const std::string& path) const { return where_ == path; }
  // Finds out early whether the file can be written; "" or the reason why not.
  std::string check() const;
  // Writes the document; "" or the reason why it could not.
  std::string write(const nlohmann::ordered_json& document) const;

 private:
  std::string where_;
};

bool stdout_is_terminal();
bool stderr_is_terminal();
// Columns of the terminal at stderr; 80 when unknown.
int terminal_columns();
// `text` between the escape codes of bold or dim when stdout is a terminal and NO_COLOR is unset.
std::string bold(std::string_view text);
std::string dim(std::string_view text);

// A progress bar on stderr with the time left, drawn on a terminal only and removed when it goes out of scope.
class Progress {
 public:
  Progress(std::string label, long long total, std::string unit, bool enabled = true);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(long long done);
  // So much was done before this run: it tells nothing about the time that the rest takes.
  void begin_at(long long done) { before_ = done; }
  void clear();

 private:
  std::string label_, unit_;
  long long total_, before_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool shown_;        // there is a terminal and somebody wants to see it
  bool drawn_ = false;
};

// Finds out early whether an option's file can be written; "" or the reason why not.
std::string check_writable(std::string_view option, const std::string& path);
// Writes a file whole or not at all, through PATH.part; "" or the reason why it could not.
std::string write_text(const std::string& path, const std::string& text);
// The whole of a text file ("-" = stdin); false, with the reason in `error`, if it cannot be read.
bool read_text(const std::string& path, std::string& text, std::string& error);
// The program's own path; beside it lies the plug-in.
std::string own_path();
// "2:05", or "1:02:05"
std::string clock_text(double seconds);
// "12.3 MiB"
std::string human_bytes(double bytes);
// At most `columns` characters on one line: line breaks become spaces, the rest becomes "...".
std::string one_line(std::string_view text, std::size_t columns);

}  // namespace lacuna::cli
