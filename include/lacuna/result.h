// SPDX-License-Identifier: Apache-2.0
// Result: how Lacuna reports what the caller can mend.
// An Error's text names the value, what is allowed, and what to do:
//   "xattention.stride: got 7, need a divisor of block (128): use 8 or 16".
// Library code never throws on input, prints, exits or reads the environment.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace lacuna {

enum class ErrorCode {
  bad_argument,   // a value out of range, a shape that does not fit
  unknown_name,   // method, parameter, kernel, file key
  unsupported,    // legal, but no kernel or host takes it; the text lists why
  bad_file,       // model, profile, text: unreadable or inconsistent
  out_of_memory,
};

struct Error {
  ErrorCode code = ErrorCode::bad_argument;
  std::string what;
};

// Either a T or an Error. Check ok() before value().
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}        // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::move(error)) {}    // NOLINT(google-explicit-constructor)
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() { return std::get<0>(state_); }
  const T& value() const { return std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

inline Error bad_argument(std::string what) { return {ErrorCode::bad_argument, std::move(what)}; }
inline Error unknown_name(std::string what) { return {ErrorCode::unknown_name, std::move(what)}; }
inline Error unsupported(std::string what) { return {ErrorCode::unsupported, std::move(what)}; }
inline Error bad_file(std::string what) { return {ErrorCode::bad_file, std::move(what)}; }

}  // namespace lacuna

// Leaves the calling function with the error of a Status or Result, if it holds one.
#define LACUNA_CHECK(expr)                                   \
  do {                                                       \
    if (auto lacuna_status = (expr); !lacuna_status.ok())    \
      return lacuna_status.error();                          \
  } while (0)
