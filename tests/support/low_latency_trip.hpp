// One trip of a rank's tokens to the experts and back, in steps that a test orders as it likes.
#pragma once

#include "support/low_latency_engine.hpp"
#include "support/low_latency_problem.hpp"

namespace switchyard::test {

// The arguments of a dispatch, in memory of the engine, laid out as the case asks for.
class SlotInputs {
 public:
  SlotInputs(SlotProblem const& problem, RankMemory& memory, int rank);
  [[nodiscard]] LowLatencyDispatchArgs args() const;
  // New contents for the same tensors; of a problem with as many tokens.
  void refresh(SlotProblem const& problem, RankMemory& memory, int rank) const;
  [[nodiscard]] ConstTensorView weights() const { return weights_; }

 private:
  SlotCase const& c_;
  std::uintptr_t stream_;
  Tensor x_;
  Tensor scales_;
  Tensor ids_;
  Tensor weights_;
};

class SlotTrip {
 public:
  SlotTrip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer);

  // Ranks that are not to be counted on from now on.
  void expect(Peers peers) { checker_.expect(std::move(peers)); }

  void send();
  void receive();
  void check_received() const;
  void send_outputs();
  void receive_outputs();
  void check_combined() const;
  // Releases the result, after spoiling it: what a later call does not write shows.
  void release();

  // The steps up to the experts, and those from there on; without halves when `whole`.
  void dispatch(bool whole = false);
  void combine(bool whole = false);

  [[nodiscard]] LowLatencyReceived const& received() const { return received_; }
  [[nodiscard]] LowLatencyDispatchArgs dispatch_args() const { return inputs_.args(); }
  // Writes what the experts make of the rows into the place that the case asks for.
  LowLatencyCombineArgs prepare_combine();
  [[nodiscard]] SlotProblem const& problem() const { return p_; }

 private:
  [[nodiscard]] LowLatencyReceived fetched() const;
  void place_outputs();
  void spoil(Tensor const& tensor) const;

  SlotProblem const& p_;
  int rank_;
  RankMemory& memory_;
  LowLatencyBuffer& buffer_;
  SlotInputs inputs_;
  SlotChecker checker_;
  LowLatencyReceived received_;
  Tensor outputs_;
  Tensor out_;
  ReceiveHook receive_;
  ReceiveHook receive_outputs_;
};

// A dispatch and a combine, checked.
void slot_round_trip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer, Peers const& peers = {});

// Those that are gone are masked at this rank, and nobody else is.
void check_masked(LowLatencyBuffer& buffer, Peers const& peers);

// A whole case: a buffer and two round trips, in halves and in whole calls.
bool run_slot_case(SlotCase const& c);

// Every case in turn; stops at the first that fails.
void run_slot_cases(std::vector<SlotCase> const& cases);

}  // namespace switchyard::test
