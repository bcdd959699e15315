// SPDX-License-Identifier: Apache-2.0
// Context: what a method's parts may ask of the engine while a plan is made: run an op (the engine
// picks the kernel), borrow scratch memory, and have their time counted under their verb.
#pragma once

#include <chrono>
#include <cstddef>

#include "lacuna/parallel.h"

namespace lacuna {

// The five verbs (docs/glossary.md): where the time of every report goes.
enum class Verb : unsigned char { estimate, budget, attend, correct, account };
constexpr int kVerbs = 5;
constexpr const char* name_of(Verb v) {
  constexpr const char* kNames[kVerbs] = {"estimate", "budget", "attend", "correct", "account"};
  return kNames[static_cast<int>(v)];
}

class Context {
 public:
  virtual ~Context() = default;

  template <class Op>
  void run(const typename Op::Args& args) {
    run_op(Op::kName, &args);
  }
  // Memory that lives until the next call with the same slot; slots are small numbers, one per array
  // that must live at the same time. 64-byte aligned, contents undefined.
  virtual void* scratch(int slot, std::size_t bytes) = 0;
  template <class T>
  T* scratch_as(int slot, std::size_t n) {
    return static_cast<T*>(scratch(slot, n * sizeof(T)));
  }
  virtual ParallelFor& threads() = 0;
  virtual void add_time(Verb verb, double seconds) = 0;

 protected:
  virtual void run_op(const char* op, const void* args) = 0;
};

// Counts the time until its end of life under a verb.
class Timed {
 public:
  Timed(Context& context, Verb verb)
      : context_(context), verb_(verb), start_(std::chrono::steady_clock::now()) {}
  ~Timed() {
    context_.add_time(verb_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  Context& context_;
  Verb verb_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace lacuna
