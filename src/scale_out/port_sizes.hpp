// How large a port's messages are. The same on all ranks.
#pragma once

#include <cstddef>

namespace switchyard::scale_out {

struct PortSizes {
  std::size_t letter_bytes = 0;  // of the largest letter
  std::size_t slot_bytes = 0;    // of a chunk at most
  int slots = 0;                 // that each neighbour may fill here
  int send_slots = 0;            // of the own chunks under way, to all neighbours together
};

}  // namespace switchyard::scale_out
