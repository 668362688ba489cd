// Compares what a rank received in low-latency mode, or got back, with the reference. Tensors lie in host memory.
#pragma once

#include "support/compare.hpp"
#include "support/low_latency_reference.hpp"

namespace switchyard::test {

class SlotChecker {
 public:
  SlotChecker(SlotProblem const& problem, int rank);
  // What is to be counted on from now on.
  void expect(Peers peers) { peers_ = std::move(peers); }

  void check_received(LowLatencyReceived const& seen) const;
  // `out`: [N, H], rows may be strided.
  void check_combined(ConstTensorView const& out) const;

  // Rows of each local expert, and a call on each row that arrived: where it lies, whose it is.
  [[nodiscard]] std::vector<std::int64_t> rows_per_expert() const;
  struct Arrival {
    std::int64_t slot;   // in all slots of the result
    std::int64_t maker;  // global expert, or this rank
    int source;
    std::int64_t token;
  };
  [[nodiscard]] std::vector<Arrival> arrivals(LowLatencyReceived const& seen) const;

 private:
  void check_shapes(LowLatencyReceived const& seen) const;
  void check_scale_shape(Tensor const& scales) const;
  void check_expert(LowLatencyReceived const& seen, std::int64_t local) const;
  void check_source(LowLatencyReceived const& seen, int source) const;
  void check_row(LowLatencyReceived const& seen, Arrival const& row) const;
  void check_scales(LowLatencyReceived const& seen, Arrival const& row) const;
  void check_slots(LowLatencyReceived const& seen, Arrival const& row) const;
  void check_close_row(std::byte const* seen, std::int64_t token) const;
  void check_combined_row(std::byte const* seen, std::int64_t token) const;
  [[nodiscard]] std::vector<std::int64_t> expected_tokens(std::int64_t group, int source) const;
  void check_count(std::int64_t seen, std::int64_t group, int source) const;

  SlotProblem const& p_;
  SlotCase const& c_;
  int rank_;
  Peers peers_;
  ExpertRange ours_;
};

// What the experts make of a result, row by row in its slots, in the dtype of the combine. Rows that nobody sent
// hold NaN: nobody may read them.
std::vector<std::byte> outputs_of(SlotChecker const& checker, SlotProblem const& p, LowLatencyReceived const& seen);

}  // namespace switchyard::test
