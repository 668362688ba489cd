#include "switchyard/stream.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "control/event_state.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

namespace detail {

// Throws a copy of the error. The threads that wait would otherwise share one exception object, and free it in an
// order that only the C++ runtime knows.
[[noreturn]] void throw_copy(std::exception_ptr const& error) {
  try {
    std::rethrow_exception(error);
  } catch (Error const& shared) {
    throw_error(shared.code(), shared.what(),
                {.rank = shared.rank(), .peer = shared.peer(), .phase = shared.phase()});
  }
}

class TaskEvent final : public EventState {
 public:
  void complete(std::exception_ptr error) {
    {
      std::lock_guard const lock(mutex_);
      done_ = true;
      error_ = std::move(error);
    }
    changed_.notify_all();
  }
  bool done() const override {
    std::lock_guard const lock(mutex_);
    return done_;
  }
  void wait() const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    if (error_) throw_copy(error_);
  }
  void wait_quietly() const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
  }
  bool wait_for(std::chrono::milliseconds timeout) const override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [this] { return done_; })) return false;
    if (error_) throw_copy(error_);
    return true;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool done_ = false;
  std::exception_ptr error_;
};

// The queue, shared by the stream's owners and its thread.
class StreamQueue {
 public:
  using Task = std::pair<std::function<void()>, std::shared_ptr<TaskEvent>>;

  std::shared_ptr<TaskEvent> push(std::function<void()> task) {
    auto event = std::make_shared<TaskEvent>();
    {
      std::lock_guard const lock(mutex_);
      tasks_.emplace_back(std::move(task), event);
    }
    changed_.notify_all();
    return event;
  }

  // Runs `task` in this thread if nothing is queued or running, or if a task of this queue asks for it, which would
  // otherwise wait for itself. Returns whether it did.
  bool run_here(std::function<void()> const& task) {
    if (inside()) {
      task();
      return true;
    }
    {
      std::lock_guard const lock(mutex_);
      if (busy_ || !tasks_.empty()) return false;
      busy_ = true;
    }
    struct Release {
      StreamQueue& queue;
      ~Release() { queue.release(); }
    } const release{*this};
    Running const running(this);
    task();
    return true;
  }

  // True in a task of this queue, also when that task runs one of another queue.
  [[nodiscard]] bool inside() const noexcept {
    for (Running const* each = running_; each != nullptr; each = each->before)
      if (each->queue == this) return true;
    return false;
  }

  void stop() {
    {
      std::lock_guard const lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
  }

  // The stream thread's loop: drains the queue before it obeys stop().
  void serve() {
    for (;;) {
      Task task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !busy_ && (stop_ || !tasks_.empty()); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
        busy_ = true;
      }
      std::exception_ptr error;
      {
        Running const running(this);
        try {
          task.first();
        } catch (...) {
          error = std::current_exception();
        }
        task.first = nullptr;  // what the task captured goes before its event completes
      }
      release();
      task.second->complete(std::move(error));
    }
  }

 private:
  // The stream's thread is not woken for nothing: that takes longer than a small call.
  void release() {
    {
      std::lock_guard const lock(mutex_);
      busy_ = false;
      if (tasks_.empty() && !stop_) return;
    }
    changed_.notify_all();
  }

  // The queues whose tasks this thread runs, innermost first.
  struct Running {
    explicit Running(StreamQueue const* of) : queue(of), before(std::exchange(running_, this)) {}
    ~Running() { running_ = before; }
    Running(Running const&) = delete;
    Running& operator=(Running const&) = delete;
    StreamQueue const* queue;
    Running const* before;
  };
  static thread_local Running const* running_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  bool busy_ = false;
  bool stop_ = false;
};

thread_local StreamQueue::Running const* StreamQueue::running_ = nullptr;

class StreamState {
 public:
  explicit StreamState(char const* name) : queue_(std::make_shared<StreamQueue>()) {
    thread_ = std::thread([queue = queue_] { queue->serve(); });
    pthread_setname_np(thread_.native_handle(), std::string(name).substr(0, 15).c_str());
  }
  ~StreamState() {
    queue_->stop();
    // The last owner may be a task of this very stream: the queue then outlives the stream and drains by itself.
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }
  StreamState(StreamState const&) = delete;
  StreamState& operator=(StreamState const&) = delete;

  StreamQueue& queue() { return *queue_; }

 private:
  std::shared_ptr<StreamQueue> queue_;
  std::thread thread_;
};

}  // namespace detail

bool Event::done() const noexcept {
  return !state_ || state_->done();
}

void Event::wait() const {
  if (state_) state_->wait();
}

bool Event::wait_for(std::chrono::milliseconds timeout) const {
  return !state_ || state_->wait_for(std::min(timeout, longest_timeout));
}

void Event::wait_on(std::uintptr_t cuda_stream) const {
  if (state_) state_->wait_on(cuda_stream);
}

Stream::Stream(char const* name) : state_(std::make_shared<detail::StreamState>(name)) {}

Event Stream::submit(std::function<void()> task) {
  return Event(state_->queue().push(std::move(task)));
}

void Stream::run(std::function<void()> const& task) {
  if (!state_->queue().run_here(task)) submit(task).wait();
}

void Stream::wait(Event const& event) {
  if (event.done()) return;
  if (state_->queue().inside()) return event.state()->wait_quietly();
  submit([state = event.state()] { state->wait_quietly(); });
}

Event Stream::record() {
  return submit([] {});
}

void Stream::synchronize() {
  if (!state_->queue().inside()) record().wait();
}

}  // namespace switchyard
