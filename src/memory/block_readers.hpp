// Which streams read blocks of memory besides the one that all calls name. Any thread may call it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace switchyard {

class BlockReaders {
 public:
  // A call's inputs and results are ordered by this stream. As long as all calls name one stream, a block that only
  // it reads may be used again as soon as it is released: the next call comes behind what was queued there. The
  // first time that a call names another, it returns the earlier one if blocks have been read there: the call must
  // come behind that, too.
  std::optional<std::uintptr_t> note_caller(std::uintptr_t stream);
  // Whether there were calls, and all have named this stream.
  [[nodiscard]] bool is_only_caller(std::uintptr_t stream) const;
  // The stream reads the block, which has any number that tells it from others.
  void note(std::size_t block, std::uintptr_t stream);
  // The block is released: the streams whose work so far must be complete before it is used again.
  [[nodiscard]] std::vector<std::uintptr_t> take(std::size_t block);
  // The stream behind which all reads are that take() does not name, if there are any.
  [[nodiscard]] std::optional<std::uintptr_t> unnamed() const;

 private:
  mutable std::mutex mutex_;
  std::optional<std::uintptr_t> caller_;  // the stream that all calls so far have named
  bool several_callers_ = false;
  bool caller_reads_ = false;
  std::map<std::size_t, std::vector<std::uintptr_t>> readers_;
};

}  // namespace switchyard
