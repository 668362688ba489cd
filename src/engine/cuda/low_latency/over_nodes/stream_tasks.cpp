#include "engine/cuda/low_latency/over_nodes/stream_tasks.hpp"

#include <utility>

#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

StreamTasks::StreamTasks() : thread_([this] { run(); }) {}

StreamTasks::~StreamTasks() {
  {
    std::lock_guard const lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StreamTasks::add(cudaStream_t stream, Work work, bool captured) {
  Task* task = nullptr;
  {
    std::lock_guard const lock(mutex_);
    auto const self = all_.insert(all_.end(), {.tasks = this, .work = std::move(work), .captured = captured});
    self->self = self;
    task = &*self;
  }
  cudaError_t const error = cudaLaunchHostFunc(stream, arrive, task);
  if (error == cudaSuccess) return;
  {
    std::lock_guard const lock(mutex_);
    all_.erase(task->self);
  }
  check_cuda(error, "queueing work of the host");
}

void StreamTasks::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return arrived_.empty(); });
}

void StreamTasks::arrive(void* task) noexcept {
  auto* const arrived = static_cast<Task*>(task);
  StreamTasks& tasks = *arrived->tasks;
  std::lock_guard const lock(tasks.mutex_);
  tasks.arrived_.push_back(arrived);
  tasks.changed_.notify_all();  // under the lock: once it is released, the work may end this object
}

void StreamTasks::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !arrived_.empty(); });
    if (arrived_.empty()) return;
    Task& task = *arrived_.front();
    lock.unlock();
    {
      // What it holds goes without the lock, which CUDA's thread takes.
      Work const work = task.captured ? task.work : std::move(task.work);
      work();
    }
    lock.lock();
    arrived_.pop_front();
    if (!task.captured) all_.erase(task.self);
    changed_.notify_all();
  }
}

}  // namespace switchyard::cuda
