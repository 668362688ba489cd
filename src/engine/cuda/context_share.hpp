// Who else of this process computes on the same GPU. Streams of one context may share a hardware queue, and work
// that waits in a queue holds up all behind it: a kernel queued behind one that waits for a peer can keep that very
// peer's kernel from starting. Ranks with contexts of their own (processes) are free of this.
#pragma once

#include <map>
#include <mutex>

namespace switchyard::cuda {

// One for each engine, as long as the engine lives.
class ContextShare {
 public:
  explicit ContextShare(int device) : device_(device) {
    std::scoped_lock const lock(registry().mutex);
    ++registry().engines[device_];
  }
  ~ContextShare() {
    std::scoped_lock const lock(registry().mutex);
    --registry().engines[device_];
  }
  ContextShare(ContextShare const&) = delete;
  ContextShare& operator=(ContextShare const&) = delete;

  [[nodiscard]] bool alone() const {
    std::scoped_lock const lock(registry().mutex);
    return registry().engines[device_] == 1;
  }

 private:
  struct Registry {
    std::mutex mutex;
    std::map<int, int> engines;  // by device
  };
  static Registry& registry() {
    static Registry the;
    return the;
  }
  int device_;
};

}  // namespace switchyard::cuda
