// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/child.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "cli/common.h"

extern char** environ;

namespace lacuna::cli {

std::string ChildResult::reason() const {
  if (code == 128 + 9) return "killed (out of memory?)";
  std::string text = err;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  text = text.substr(text.rfind('\n') + 1);  // npos + 1 = 0: the only line
  if (text.starts_with("lacuna: ")) text.erase(0, 8);
  if (code > 128) return fmt::format("ended by signal {} ({}) {}", code - 128, strsignal(code - 128), text);
  return text.empty() ? fmt::format("exit code {}", code) : text;
}

ChildResult run_child(const std::vector<std::string>& arguments,
                      const std::function<void(const std::string& out)>& tick) {
  ChildResult result;
  const std::string program = own_path();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);

  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    result.err = fmt::format("cannot make a pipe ({})", std::strerror(errno));
    return result;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
  pid_t pid = 0;
  const int bad = posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  close(err[1]);
  if (bad != 0) {
    result.err = fmt::format("cannot start {} ({})", program, std::strerror(bad));
    close(out[0]);
    close(err[0]);
    return result;
  }
  pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string* const into[2] = {&result.out, &result.err};
  for (int open = 2; open > 0;) {
    poll(fds, 2, 500);  // milliseconds; an interrupted poll only ticks early
    tick(result.out);
    for (int i = 0; i < 2; ++i) {
      if (fds[i].fd < 0 || !(fds[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
      char buffer[65536];
      const ssize_t n = read(fds[i].fd, buffer, sizeof buffer);
      if (n > 0) into[i]->append(buffer, static_cast<std::size_t>(n));
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      close(fds[i].fd);
      fds[i].fd = -1;  // poll skips it
      fds[i].revents = 0;
      --open;
    }
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace lacuna::cli
