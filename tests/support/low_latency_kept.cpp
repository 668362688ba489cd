#include "support/low_latency_kept.hpp"

#include <atomic>

#include "support/span.hpp"

namespace switchyard::test {

bool slots_grow() {
  SlotCase const c{.ranks = 1, .tokens = 1, .hidden = 2, .experts = 1, .top_k = 1, .max_results = 1};
  SlotProblem const p = make_slot_problem(c);
  std::atomic<bool> grow{true};
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip one(p, rank, buffer);
    SlotTrip two(p, rank, buffer);
    one.dispatch();
    try {
      two.dispatch();
    } catch (InvalidArgument const& error) {
      check_names(error, {"max_results", "memory"});
      grow = false;
    }
  });
  return grow;
}

KeptTrip::KeptTrip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer, bool whole,
                   Peers const& peers)
    : memory_(rank.memory), buffer_(buffer), trip_(std::make_unique<SlotTrip>(problem, rank, buffer)) {
  trip_->expect(peers);
  trip_->dispatch(whole);
  trip_->combine(whole);
  when_new_ = bytes();
}

std::vector<KeptTrip::Bytes> KeptTrip::bytes() const {
  buffer_.synchronize();
  std::vector<Bytes> all;
  LowLatencyReceived const& of = trip_->received();
  for (Tensor const* const tensor :
       {&of.x, &of.scales, &of.counts, &of.ranges, &of.source_token, &of.topk_idx, &of.topk_weights}) {
    Tensor const host = memory_.fetch(*tensor);
    auto const* const begin = host.given() ? host.data<std::byte>() : nullptr;
    all.emplace_back(begin, begin == nullptr ? begin : begin + span_bytes(host));
  }
  return all;
}

void KeptTrip::check_unchanged() const {
  std::vector<Bytes> const now = bytes();
  for (std::size_t tensor = 0; tensor < now.size(); ++tensor)
    check(now[tensor] == when_new_[tensor], "tensor ", tensor, " of a result that is kept has changed");
}

}  // namespace switchyard::test
