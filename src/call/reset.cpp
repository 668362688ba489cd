#include "call/reset.hpp"

#include <fmt/core.h>

namespace switchyard {

Error of_reset(int rank, Error const& error) {
  return {error.code(),
          fmt::format("rank {}: reset: {}", rank, error.what()),
          {.rank = error.rank() < 0 ? rank : error.rank(), .peer = error.peer(), .phase = "reset"}};
}

}  // namespace switchyard
