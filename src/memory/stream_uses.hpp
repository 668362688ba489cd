// On which streams memory of ours is read besides those of calls, so that it is not used again too early: a
// framework that shows such memory as its tensors knows, and its own record_stream() does nothing for memory of
// others.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

// Who hands out memory that streams read.
class StreamUses {
 public:
  // As long as it lives, the one that it stands for is asked. It is that one's last member: made when the others
  // are there, and gone, once no note is under way, before they go.
  class Entry {
   public:
    explicit Entry(StreamUses& uses);
    ~Entry();
    Entry(Entry const&) = delete;
    Entry& operator=(Entry const&) = delete;

   private:
    StreamUses& uses_;
  };

  StreamUses() = default;
  virtual ~StreamUses() = default;
  StreamUses(StreamUses const&) = delete;
  StreamUses& operator=(StreamUses const&) = delete;

  // What has been queued on `stream` (a cudaStream_t) when the memory at `at` is released reads it. Returns false
  // when the memory is not this one's. Any thread calls it; it must not release memory.
  virtual bool note(std::byte const* at, std::uintptr_t stream) noexcept = 0;
};

// Tells the one whose memory it is, if there is one.
void note_stream_use(void const* at, std::uintptr_t stream) noexcept;

// A point in streams, recorded when it was made. Once it has passed, what was queued there before is complete.
class StreamFence {
 public:
  StreamFence() = default;
  virtual ~StreamFence() = default;
  StreamFence(StreamFence const&) = delete;
  StreamFence& operator=(StreamFence const&) = delete;
  [[nodiscard]] virtual bool passed() const noexcept = 0;
  // What is queued on `stream` from here on starts after it.
  virtual void make_stream_wait(std::uintptr_t stream) const = 0;
  // Waits without a deadline: the caller's kernels may take any time.
  virtual void wait() const noexcept = 0;
};

}  // namespace switchyard
