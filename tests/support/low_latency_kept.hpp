// Results that are kept for longer than the buffer has frames, and what they held when they were new.
#pragma once

#include "support/low_latency_trip.hpp"

namespace switchyard::test {

// Whether a buffer of this engine takes memory for one result more than it was made for.
bool slots_grow();

// A trip whose result is kept when it is over.
class KeptTrip {
 public:
  // Both halves of a dispatch and a combine, checked; `whole` is without halves.
  KeptTrip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer, bool whole,
           Peers const& peers = {});

  // Every byte of the tensors, of rows and of what lies between them, is as it was.
  void check_unchanged() const;
  void release() { trip_->release(); }
  [[nodiscard]] SlotTrip& trip() const { return *trip_; }

 private:
  using Bytes = std::vector<std::byte>;
  [[nodiscard]] std::vector<Bytes> bytes() const;

  RankMemory& memory_;
  LowLatencyBuffer& buffer_;
  std::unique_ptr<SlotTrip> trip_;
  std::vector<Bytes> when_new_;
};

}  // namespace switchyard::test
