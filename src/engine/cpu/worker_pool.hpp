// The threads that move data for one rank: the CPU's counterpart of SMs.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace switchyard::cpu {

class WorkerPool {
 public:
  WorkerPool() = default;
  ~WorkerPool();
  WorkerPool(WorkerPool const&) = delete;
  WorkerPool& operator=(WorkerPool const&) = delete;

  // Runs work(0) ... work(workers - 1) at the same time, work(0) in the calling thread, and returns when all are
  // done. Then it rethrows the first exception. Threads are made when they are first needed, and kept; where the
  // system gives fewer, fewer numbers are passed to `work`. One thread at a time calls it.
  void run(int workers, std::function<void(int)> const& work);

 private:
  void serve(int worker);
  void grow(int workers) noexcept;
  // Runs `work` and keeps what it throws.
  void attempt(std::function<void(int)> const& work, int worker) noexcept;

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable finish_;
  std::vector<std::thread> threads_;  // of workers 1, 2, ...
  std::function<void(int)> const* work_ = nullptr;
  std::uint64_t round_ = 0;
  int active_ = 0;            // workers of this round, the caller included
  int running_ = 0;           // threads that have not finished this round
  std::exception_ptr error_;  // the first of this round
  bool stop_ = false;
};

}  // namespace switchyard::cpu
