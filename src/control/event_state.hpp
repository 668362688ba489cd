// What stands behind an Event: the interface that every engine implements.
#pragma once

#include <chrono>
#include <cstdint>

namespace switchyard::detail {

// Any thread may call it. The point it stands for completes once.
class EventState {
 public:
  EventState() = default;
  virtual ~EventState() = default;
  EventState(EventState const&) = delete;
  EventState& operator=(EventState const&) = delete;

  virtual bool done() const = 0;
  // Blocks until the point is complete, and throws the error of what completed it.
  virtual void wait() const = 0;
  // The same, but throws no error.
  virtual void wait_quietly() const = 0;
  // wait(), but false when the timeout passes first.
  virtual bool wait_for(std::chrono::milliseconds timeout) const = 0;
  // Makes a CUDA stream wait for the point; an event of the host can only be waited for here.
  virtual void wait_on(std::uintptr_t /*cuda_stream*/) const { wait_quietly(); }
};

}  // namespace switchyard::detail
