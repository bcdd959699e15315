// SPDX-License-Identifier: Apache-2.0
// How long the runs still to come will take, guessed from those that are done.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lacuna::cli {

class TimeLeft {
 public:
  // A job of `kind` over so many tokens. Jobs of a kind are alike but for their length.
  void plan(const std::string& kind, double tokens);
  // The next planned job is over.
  void done(double seconds);
  std::size_t jobs() const { return jobs_.size(); }
  std::size_t jobs_done() const { return done_; }
  // "about 40 s left"; "" when nothing is left, or nothing is known yet.
  std::string words() const;

 private:
  struct Job {
    std::string kind;
    double work;
  };
  std::vector<Job> jobs_;
  std::size_t done_ = 0;
  std::map<std::string, double> rate_;  // seconds per work of a kind's last job
};

}  // namespace lacuna::cli
