// What an Event stands for; each engine has its own.
#pragma once

#include <chrono>
#include <cstdint>

namespace switchyard::detail {

class EventState {
 public:
  EventState() = default;
  virtual ~EventState() = default;
  EventState(EventState const&) = delete;
  EventState& operator=(EventState const&) = delete;

  virtual bool done() const = 0;
  virtual void wait() const = 0;
  // As wait(), but an error of what the event stands for is not thrown.
  virtual void wait_quietly() const = 0;
  virtual bool wait_for(std::chrono::milliseconds timeout) const = 0;
  virtual void wait_on(std::uintptr_t /*cuda_stream*/) const { wait_quietly(); }
};

}  // namespace switchyard::detail
