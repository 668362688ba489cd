// Ordering on the CPU as on a GPU: a stream is a queue that runs its tasks one after another; an event
// marks a point in a stream that others wait for.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

namespace switchyard {

namespace detail {
class EventState;
class StreamState;
}  // namespace detail

// Completion of a point in a stream. A default-constructed event is complete. Copies share the state.
class Event {
 public:
  Event() = default;
  explicit Event(std::shared_ptr<detail::EventState> state) : state_(std::move(state)) {}
  [[nodiscard]] bool done() const noexcept;
  // Blocks the calling thread; rethrows the error of the task that the event belongs to.
  void wait() const;
  // As wait(), but returns false when `timeout` passes first.
  [[nodiscard]] bool wait_for(std::chrono::milliseconds timeout) const;
  // What is queued later on `cuda_stream` (a cudaStream_t; 0: the default stream) starts only after this event; the
  // host does not wait for work on the GPU. An event of the CPU engine is waited for here and now.
  void wait_on(std::uintptr_t cuda_stream) const;
  [[nodiscard]] std::shared_ptr<detail::EventState> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::EventState> state_;
};

// A queue with a thread of its own. Tasks run in the order of submission. Copies share the queue; when the
// last copy goes, the queue is drained first.
class Stream {
 public:
  explicit Stream(char const* name = "stream");
  // Runs `task` after everything submitted before. An exception ends the task only and is rethrown by
  // waiting for the returned event.
  Event submit(std::function<void()> task);
  // As submit() and wait() in one; saves the change of threads when the stream is idle.
  void run(std::function<void()> const& task);
  // What is submitted later starts only after `event`. An event that failed counts as complete.
  void wait(Event const& event);
  // An event that completes when everything submitted so far is done.
  [[nodiscard]] Event record();
  void synchronize();

 private:
  std::shared_ptr<detail::StreamState> state_;
};

}  // namespace switchyard
