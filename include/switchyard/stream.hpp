// Orders work on the CPU as on a GPU: a stream is a queue that runs its tasks one after another, and an event marks
// a point in a stream that others wait for.
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

// The completion of a point in a stream. A default-constructed event is complete. Copies share the state. Any
// thread may use an event.
class Event {
 public:
  Event() = default;
  explicit Event(std::shared_ptr<detail::EventState> state) : state_(std::move(state)) {}
  [[nodiscard]] bool done() const noexcept;
  // Blocks the calling thread until the event is complete; rethrows the error of the task that it belongs to.
  void wait() const;
  // The same, but returns false when `timeout` passes first.
  [[nodiscard]] bool wait_for(std::chrono::milliseconds timeout) const;
  // What is queued on `cuda_stream` (a cudaStream_t; 0: the default stream) from here on starts after this event.
  // The host does not wait for work on the GPU; for an event that hosts complete (CPU engine, several nodes) it
  // waits here.
  void wait_on(std::uintptr_t cuda_stream) const;
  [[nodiscard]] std::shared_ptr<detail::EventState> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::EventState> state_;
};

// A queue with a thread of its own, which runs tasks in the order of submission. Copies share the queue; the last
// one to go waits until it is empty. Any thread may use a stream.
class Stream {
 public:
  explicit Stream(char const* name = "stream");
  // Runs `task` after everything submitted before. An exception ends the task only and is rethrown by
  // waiting for the returned event.
  Event submit(std::function<void()> task);
  // submit() and wait() in one. On an idle stream the task runs in the calling thread, which saves a change of
  // threads.
  void run(std::function<void()> const& task);
  // What is submitted from here on starts after `event`. An event that failed counts as complete.
  void wait(Event const& event);
  // An event that completes when everything submitted so far is done.
  [[nodiscard]] Event record();
  // Waits until everything submitted so far is done. Errors of tasks are thrown by their own events.
  void synchronize();

 private:
  std::shared_ptr<detail::StreamState> state_;
};

}  // namespace switchyard
