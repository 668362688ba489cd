// Which back end of the transport a job uses, and its endpoints.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "job/message.hpp"
#include "scale_out/cards.hpp"
#include "transport/transport.hpp"

namespace switchyard::scale_out {

struct BackEnd {
  bool loopback = false;     // otherwise libfabric
  std::uint64_t faults = 0;  // seed of what goes wrong on purpose; 0: nothing does
};

// What a rank says of itself: its process, and its settings.
void put_back_end(MessageWriter& message);
// What all ranks then use. Throws InvalidArgument, the same on all ranks, when their settings differ, or ask for
// loopback between processes.
BackEnd agreed_back_end(std::vector<MessageReader>& ranks);

struct EndpointTerms {
  int rank = 0;
  int local_rank = 0;
  std::string address;         // of this machine, as other nodes know it
  std::size_t max_writes = 0;  // under way at most
  // Of these, credits and notices: where an end of a write takes a neighbour that polls, these may last until its
  // next call, and must leave room for what this call needs.
  std::size_t lasting_writes = 0;
  std::size_t max_arrivals = 0;  // not polled yet at most
  std::size_t memory_bytes = 0;  // of the region that each registers
};

// One for each NIC, at least one.
std::vector<std::unique_ptr<transport::Endpoint>> open_endpoints(BackEnd const& back_end,
                                                                 EndpointTerms const& terms);

}  // namespace switchyard::scale_out
