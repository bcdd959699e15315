// SPDX-License-Identifier: Apache-2.0
// A file that lives in memory: child processes open it by its path, and no interruption leaves it behind.
#pragma once

#include <string>
#include <string_view>

namespace lacuna::cli {

class MemoryFile {
 public:
  MemoryFile() = default;
  ~MemoryFile();
  MemoryFile(MemoryFile&& other) noexcept;
  MemoryFile& operator=(MemoryFile&&) = delete;
  // "" or the reason why it could not be written. Once per object.
  std::string write(std::string_view text);
  // Good for as long as this object and this process live.
  std::string path() const;

 private:
  int descriptor_ = -1;
};

}  // namespace lacuna::cli
