// Ends a wait from outside: for language bindings, whose users press Ctrl-C.
#pragma once

namespace switchyard {

// A call that waits for a peer in the calling thread asks it about every 50 ms, and after a signal. True ends the
// call: it throws SystemError, and the buffer has failed on all ranks, as after a Timeout.
using InterruptCheck = bool (*)() noexcept;

// Sets the check of the current thread for as long as the object lives. Only waits of the CPU engine ask it, not
// those of the CUDA engine or of a Communicator.
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
