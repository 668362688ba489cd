// Work on the host that is in the order of CUDA streams: a thread does it when a stream has come to it, and does
// not keep the stream meanwhile. In a CUDA graph it is done at each replay.
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace switchyard::cuda {

class StreamTasks {
 public:
  // Must not throw.
  using Work = std::function<void()>;

  StreamTasks();
  // No stream may come to any work any more. What streams have come to is done first.
  ~StreamTasks();
  StreamTasks(StreamTasks const&) = delete;
  StreamTasks& operator=(StreamTasks const&) = delete;

  // `captured`: the stream is being captured, and the work is kept as long as this object lives.
  void add(cudaStream_t stream, Work work, bool captured);
  // Waits until all is done that streams have come to so far. Its work ends by its own deadlines.
  void wait();

 private:
  struct Task {
    StreamTasks* tasks = nullptr;
    Work work{};
    bool captured = false;
    std::list<Task>::iterator self{};
  };

  static void arrive(void* task) noexcept;  // called by CUDA's thread
  void run();

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::list<Task> all_;
  std::deque<Task*> arrived_;  // and not done yet; the first may be under way
  bool ending_ = false;
  std::thread thread_;  // last
};

}  // namespace switchyard::cuda
