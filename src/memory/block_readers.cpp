#include "memory/block_readers.hpp"

#include <algorithm>
#include <utility>

namespace switchyard {

std::optional<std::uintptr_t> BlockReaders::note_caller(std::uintptr_t stream) {
  std::lock_guard const lock(mutex_);
  if (!caller_) caller_ = stream;
  if (several_callers_ || *caller_ == stream) return std::nullopt;
  several_callers_ = true;
  return caller_reads_ ? caller_ : std::nullopt;
}

bool BlockReaders::is_only_caller(std::uintptr_t stream) const {
  std::lock_guard const lock(mutex_);
  return !several_callers_ && caller_ == stream;
}

void BlockReaders::note(std::size_t block, std::uintptr_t stream) {
  std::lock_guard const lock(mutex_);
  if (!several_callers_ && caller_ == stream) {
    caller_reads_ = true;
    return;
  }
  auto& streams = readers_[block];
  if (std::ranges::find(streams, stream) == streams.end()) streams.push_back(stream);
}

std::vector<std::uintptr_t> BlockReaders::take(std::size_t block) {
  std::lock_guard const lock(mutex_);
  auto found = readers_.extract(block);
  return found.empty() ? std::vector<std::uintptr_t>{} : std::move(found.mapped());
}

std::optional<std::uintptr_t> BlockReaders::unnamed() const {
  std::lock_guard const lock(mutex_);
  return caller_reads_ && !several_callers_ ? caller_ : std::nullopt;
}

}  // namespace switchyard
