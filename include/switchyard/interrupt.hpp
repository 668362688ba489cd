// Ending a wait from outside: for language bindings, whose users press Ctrl-C.
#pragma once

namespace switchyard {

// Asked about every 50 ms, and after a signal, while a call that runs in the calling thread waits for a peer.
// True ends the call: it throws SystemError, and the buffer has failed on all ranks, as after a Timeout.
using InterruptCheck = bool (*)() noexcept;

// Sets the check of the current thread for as long as the object lives. CPU engine; waits of the CUDA engine, and
// those of a Communicator, do not ask.
class InterruptScope {
 public:
  explicit InterruptScope(InterruptCheck check) noexcept;
  ~InterruptScope();
  InterruptScope(InterruptScope const&) = delete;
  InterruptScope& operator=(InterruptScope const&) = delete;

 private:
  InterruptCheck before_;
};

}  // namespace switchyard
