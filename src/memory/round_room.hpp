// The part of the heap that calls in rounds have to themselves. What a round was found to fit into is then there
// when its rows move again, in a cached dispatch or a combine, whoever has taken the rest of the heap meanwhile.
#pragma once

#include <cstddef>
#include <memory>

#include "layout/routing.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard {

// Calls of one buffer follow one another on one stream, so all handles of that buffer share one room.
class RoundRooms {
 public:
  // The room that some handle keeps, or a larger one, if a call has use for it and it can be had: three quarters of
  // the largest free range at most, since results and the caller's tensors want memory, too. It has no bytes when
  // there are none. `useful`: bytes that the call has use for.
  [[nodiscard]] detail::RoundRoom take(SymmetricHeap& heap, std::size_t useful);

 private:
  detail::RoundRoom latest_;  // without its owner, which is up to the handles
  std::weak_ptr<void> owner_;
};

}  // namespace switchyard
