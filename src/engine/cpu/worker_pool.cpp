#include "engine/cpu/worker_pool.hpp"

#include <algorithm>
#include <utility>

#include "base/log.hpp"

namespace switchyard::cpu {

WorkerPool::~WorkerPool() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::grow(int workers) noexcept {
  try {
    while (static_cast<int>(threads_.size()) < workers - 1) {
      int const worker = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, worker] { serve(worker); });
    }
  } catch (std::exception const& error) {
    logger().warn("cannot start worker {} of {}: {}", threads_.size() + 1, workers - 1, error.what());
  }
}

void WorkerPool::attempt(std::function<void(int)> const& work, int worker) noexcept {
  try {
    work(worker);
  } catch (...) {
    std::lock_guard const lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void WorkerPool::run(int workers, std::function<void(int)> const& work) {
  if (workers <= 1) {
    work(0);
    return;
  }
  {
    std::lock_guard const lock(mutex_);
    grow(workers);
    work_ = &work;
    active_ = std::min(workers, static_cast<int>(threads_.size()) + 1);
    running_ = active_ - 1;
    error_ = nullptr;
    ++round_;
  }
  start_.notify_all();
  attempt(work, 0);
  std::unique_lock lock(mutex_);
  finish_.wait(lock, [this] { return running_ == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void WorkerPool::serve(int worker) {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    start_.wait(lock, [&] { return stop_ || (round_ != seen && worker < active_); });
    if (stop_) return;
    seen = round_;
    auto const& work = *work_;
    lock.unlock();
    attempt(work, worker);
    lock.lock();
    if (--running_ == 0) finish_.notify_one();
  }
}

}  // namespace switchyard::cpu
