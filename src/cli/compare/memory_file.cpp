// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/memory_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

namespace lacuna::cli {

MemoryFile::~MemoryFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

MemoryFile::MemoryFile(MemoryFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

std::string MemoryFile::write(std::string_view text) {
  descriptor_ = memfd_create("lacuna-text", MFD_CLOEXEC);
  bool good = descriptor_ >= 0;
  while (good && !text.empty()) {
    const ssize_t n = ::write(descriptor_, text.data(), text.size());
    if (n > 0)
      text.remove_prefix(static_cast<std::size_t>(n));
    else
      good = n < 0 && errno == EINTR;
  }
  return good ? "" : fmt::format("cannot keep a text in memory ({})", std::strerror(errno));
}

std::string MemoryFile::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), descriptor_); }

}  // namespace lacuna::cli
