// SPDX-License-Identifier: Apache-2.0
#include "cli/common.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lacuna::cli {

int bad_input(std::string_view what) {
  std::fflush(stdout);
  fmt::print(stderr, "lacuna: {}\n", what);
  return kBadInput;
}

int stopped(long long n, std::string_view unit) {
  std::fflush(stdout);
  fmt::print(stderr, "lacuna: interrupted after {} {}\n", n, unit);
  return kInterrupted;
}

void note(std::string_view what) { fmt::print(stderr, "lacuna: note: {}\n", what); }

int parse_arguments(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "-ub") words.emplace_back("--ubatch-size");
    else if (word == "-ctk") words.emplace_back("--cache-type-k");
    else if (word == "-ctv") words.emplace_back("--cache-type-v");
    else words.emplace_back(word);
  }
  app.footer("exit codes: 0 good, 1 a check failed, 2 bad input, 130 interrupted (Ctrl-C)");
  std::reverse(words.begin(), words.end());  // CLI11 takes its vector from the back
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return kOk;
  } catch (const CLI::ParseError& e) {
    return bad_input(fmt::format("{}; 'lacuna {} --help' shows what it takes", one_line(e.what(), 300), app.get_name()));
  }
  return -1;
}

void JsonSink::add_option(CLI::App& app) {
  app.add_option_function<std::vector<std::string>>(
         "--json", [this](const std::vector<std::string>& v) { where_ = v.empty() || v[0].empty() ? "-" : v[0]; },
         "write JSON to FILE; without FILE, or with -, to stdout")
      ->expected(0, 1)
      ->type_name("[FILE|-]")
      ->trigger_on_parse(false);
}

std::string check_writable(std::string_view option, const std::string& path) {
  std::error_code bad;
  if (std::filesystem::is_directory(path, bad)) return fmt::format("{} {}: is a folder; name a file in it", option, path);
  const std::string part = path + ".part";
  std::FILE* f = std::fopen(part.c_str(), "w");
  if (!f) return fmt::format("{} {}: cannot write there ({}); name a file in a writable folder", option, path, std::strerror(errno));
  std::fclose(f);
  std::remove(part.c_str());
  return "";
}

std::string JsonSink::check() const { return !wanted() || on_stdout() ? "" : check_writable("--json", where_); }

std::string JsonSink::write(const nlohmann::ordered_json& document) const {
  // Model output may end inside a UTF-8 character: replaced, never thrown about.
  const std::string text = document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (on_stdout()) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return std::fflush(stdout) == 0 ? "" : fmt::format("stdout: {}", std::strerror(errno));
  }
  if (const std::string why = check(); !why.empty()) return why;
  const std::string why = write_text(where_, text);
  return why.empty() ? "" : fmt::format("--json {}: cannot write ({})", where_, why);
}

std::string write_text(const std::string& path, const std::string& text) {
  const std::string part = path + ".part";
  std::FILE* f = std::fopen(part.c_str(), "w");
  bool good = f && std::fwrite(text.data(), 1, text.size(), f) == text.size();
  if (f) good = std::fclose(f) == 0 && good;
  if (good) good = std::rename(part.c_str(), path.c_str()) == 0;
  if (good) return "";
  const std::string why = std::strerror(errno);
  if (f) std::remove(part.c_str());
  return why;
}

bool stdout_is_terminal() { return isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

int terminal_columns() {
  winsize w{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
  return 80;
}

namespace {
std::string styled(std::string_view code, std::string_view text) {
  static const bool on = stdout_is_terminal() && !std::getenv("NO_COLOR");
  return on ? fmt::format("\033[{}m{}\033[0m", code, text) : std::string(text);
}
}  // namespace

std::string bold(std::string_view text) { return styled("1", text); }
std::string dim(std::string_view text) { return styled("2", text); }

Progress::Progress(std::string label, long long total, std::string unit, bool enabled)
    : label_(std::move(label)), unit_(std::move(unit)), total_(std::max(total, 1LL)), shown_(enabled && stderr_is_terminal()) {}

Progress::~Progress() { clear(); }

void Progress::update(long long done) {
  if (!shown_) return;
  std::string right = fmt::format(" {}/{} {}", done, total_, unit_);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (done > before_ && done < total_) right += fmt::format(", {} left", clock_text(seconds * static_cast<double>(total_ - done) / static_cast<double>(done - before_)));
  const int used = static_cast<int>(label_.size() + right.size()) + 4;
  const int width = std::clamp(terminal_columns() - used, 0, 40);
  const int full = static_cast<int>(width * std::min(done, total_) / total_);
  fmt::print(stderr, "\r\033[K{} [{:#<{}}{: <{}}]{}", label_, "", full, "", width - full, right);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::clear() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

std::string clock_text(double seconds) {
  const auto s = static_cast<long long>(std::ceil(seconds));
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60) : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

bool read_text(const std::string& path, std::string& text, std::string& error) {
  if (path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
    return true;
  }
  std::ifstream in(path, std::ios::binary);
  if (in) {
    try {
      text.assign(std::istreambuf_iterator<char>(in), {});
    } catch (const std::exception&) {  // a folder opens and then fails to read
      in.setstate(std::ios::badbit);
    }
  }
  if (!in.bad() && in.is_open()) return true;
  error = fmt::format("{}: cannot read ({})", path, std::strerror(errno ? errno : EIO));
  return false;
}

std::string own_path() {
  char buffer[4096];
  const ssize_t n = readlink("/proc/self/exe", buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
}

std::string human_bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int u = 0;
  for (; bytes >= 1024 && u < 4; ++u) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, u == 0 ? 0 : 1, units[u]);
}

std::string one_line(std::string_view text, std::size_t columns) {
  std::string out;
  for (const char c : text) {
    const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (blank && (out.empty() || out.back() == ' ')) continue;
    out += blank ? ' ' : c;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  if (out.size() <= columns) return out;
  out.resize(columns > 3 ? columns - 3 : columns);
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();  // UTF-8 tail
  if (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80)) out.pop_back();
  return out + "...";
}

}  // namespace lacuna::cli
