#include "engine/cpu/worker_pool.hpp"

namespace switchyard::cpu {

WorkerPool::~WorkerPool() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::grow(int workers) {
  while (static_cast<int>(threads_.size()) < workers - 1) {
    int const worker = static_cast<int>(threads_.size()) + 1;
    threads_.emplace_back([this, worker] { serve(worker); });
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
    active_ = workers;
    running_ = workers - 1;
    ++round_;
  }
  start_.notify_all();
  work(0);
  std::unique_lock lock(mutex_);
  finish_.wait(lock, [this] { return running_ == 0; });
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
    work(worker);
    lock.lock();
    if (--running_ == 0) finish_.notify_one();
  }
}

}  // namespace switchyard::cpu
