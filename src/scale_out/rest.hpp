// How whoever waits for a transport passes the time between looks that find nothing.
#pragma once

#include <thread>

namespace switchyard::scale_out {

// A transport may need many looks, while to give the core away may take as long as others want to run. So that
// happens after some looks, not after each.
class Rest {
 public:
  void turn() {
    if (++turns_ % 16 == 0) std::this_thread::yield();
  }

 private:
  unsigned turns_ = 0;
};

}  // namespace switchyard::scale_out
