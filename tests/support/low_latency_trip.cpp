#include "support/low_latency_trip.hpp"

#include <algorithm>
#include <cstring>

#include "support/span.hpp"

namespace switchyard::test {
namespace {

constexpr std::byte poison{0xa5};

// Rows with `extra` elements between them that nobody may touch or look at.
struct HostRows {
  HostRows(DType dtype, std::int64_t rows, std::int64_t width, std::int64_t extra)
      : stride(width + extra), bytes(index(rows * stride) * size_of(dtype), poison) {
    view = {bytes.data(), dtype, {rows, width}};
    view.strides[0] = stride;
  }
  void fill(std::byte const* rows) {
    std::size_t const row = index(view.size(1)) * size_of(view.dtype);
    for (std::size_t i = 0; i < index(view.size(0)); ++i)
      std::copy_n(rows + i * row, row, bytes.data() + i * index(stride) * size_of(view.dtype));
  }
  std::int64_t stride;
  std::vector<std::byte> bytes;
  ConstTensorView view;
};

HostRows host_x(SlotProblem const& p, int rank) {
  HostRows rows(p.the.dtype, p.tokens(rank), p.the.width(), p.the.extra_stride);
  rows.fill(p.input(rank).x.data());
  return rows;
}

struct HostScales {
  std::vector<std::byte> bytes;
  ConstTensorView view;
};

HostScales host_scales(SlotProblem const& p, int rank) {
  HostScales scales{p.scales[index(rank)], {}};
  if (p.the.cast != SendCast::none || !p.the.scaled()) return scales;
  std::int64_t const n = p.tokens(rank);
  std::int64_t const width = p.the.scale_width();
  scales.view = {scales.bytes.data(), p.the.scale_dtype(), {n, width}};
  if (!p.the.scales_by_column) return scales;
  std::size_t const element = size_of(p.the.scale_dtype());
  for (std::size_t i = 0; i < index(n * width); ++i) {
    std::size_t const from = i % index(n) * index(width) + i / index(n);
    std::copy_n(p.scales[index(rank)].data() + from * element, element, scales.bytes.data() + i * element);
  }
  scales.view.strides = {1, n, 0};
  return scales;
}

struct HostIds {
  std::vector<std::int32_t> narrow;
  ConstTensorView view;
};

HostIds host_ids(SlotProblem const& p, int rank) {
  RankInput const& input = p.input(rank);
  HostIds ids{{input.ids.begin(), input.ids.end()}, {}};
  void const* const data =
      p.the.id_dtype == DType::i64 ? static_cast<void const*>(input.ids.data()) : ids.narrow.data();
  ids.view = {data, p.the.id_dtype, {input.tokens, p.the.top_k}};
  return ids;
}

ConstTensorView host_weights(SlotProblem const& p, int rank) {
  if (!p.the.weights) return {};
  return {p.input(rank).weights.data(), DType::f32, {p.tokens(rank), p.the.top_k}};
}

}  // namespace

SlotInputs::SlotInputs(SlotProblem const& problem, RankMemory& memory, int rank)
    : c_(problem.the),
      stream_(memory.stream()),
      x_(memory.place(host_x(problem, rank).view)),
      scales_(memory.place(host_scales(problem, rank).view)),
      ids_(memory.place(host_ids(problem, rank).view)),
      weights_(memory.place(host_weights(problem, rank))) {}

void SlotInputs::refresh(SlotProblem const& problem, RankMemory& memory, int rank) const {
  memory.write(x_, host_x(problem, rank).view.data);
  if (scales_.given()) memory.write(scales_, host_scales(problem, rank).view.data);
  memory.write(ids_, host_ids(problem, rank).view.data);
  if (weights_.given()) memory.write(weights_, host_weights(problem, rank).data);
}

LowLatencyDispatchArgs SlotInputs::args() const {
  LowLatencyDispatchArgs args;
  args.x = x_;
  args.scales = scales_;
  args.topk_idx = ids_;
  if (!c_.by_expert()) args.topk_weights = weights_;
  args.cast = c_.cast;
  args.layout = c_.layout;
  args.cuda_stream = stream_;
  return args;
}

SlotTrip::SlotTrip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer)
    : p_(problem),
      rank_(rank.rank()),
      memory_(rank.memory),
      buffer_(buffer),
      inputs_(problem, rank.memory, rank.rank()),
      checker_(problem, rank.rank()) {}

void SlotTrip::send() {
  received_ = buffer_.send_dispatch(inputs_.args(), receive_);
}

void SlotTrip::receive() {
  receive_(memory_.stream());
  receive_ = nullptr;
}

void SlotTrip::dispatch(bool whole) {
  if (whole) {
    received_ = buffer_.dispatch(inputs_.args());
  } else {
    send();
    receive();
  }
  check_received();
}

LowLatencyReceived SlotTrip::fetched() const {
  buffer_.synchronize();
  LowLatencyReceived host = received_;
  for (Tensor* const tensor : {&host.x, &host.scales, &host.counts, &host.ranges, &host.source_token,
                               &host.topk_idx, &host.topk_weights}) {
    *tensor = memory_.fetch(*tensor);
  }
  return host;
}

void SlotTrip::check_received() const {
  checker_.check_received(fetched());
}

void SlotTrip::place_outputs() {
  LowLatencyReceived const host = fetched();
  TensorView const like = host.x.view();
  std::vector<std::byte> const rows = outputs_of(checker_, p_, host);
  ConstTensorView const view{rows.data(), p_.the.combine_dtype, {like.size(0), like.size(1), p_.the.hidden}};
  if (!p_.the.zero_copy) {
    outputs_ = memory_.place(view);
    return;
  }
  outputs_ = buffer_.outputs(received_.handle, p_.the.combine_dtype);
  oracle::expect_shape({.what = "outputs", .rank = rank_}, outputs_, p_.the.combine_dtype,
                       {like.size(0), like.size(1), p_.the.hidden});
  memory_.write(outputs_, rows.data());
}

LowLatencyCombineArgs SlotTrip::prepare_combine() {
  place_outputs();
  HostRows const out(p_.the.combine_dtype, p_.tokens(rank_), p_.the.hidden, p_.the.extra_stride);
  out_ = memory_.place(out.view);
  LowLatencyCombineArgs args;
  args.x = outputs_;
  args.handle = received_.handle;
  if (p_.the.by_expert()) args.topk_weights = inputs_.weights();
  args.coding = p_.the.coding;
  args.out = out_;
  args.cuda_stream = memory_.stream();
  return args;
}

void SlotTrip::send_outputs() {
  buffer_.send_combine(prepare_combine(), receive_outputs_);
}

void SlotTrip::receive_outputs() {
  receive_outputs_(memory_.stream());
  receive_outputs_ = nullptr;
}

void SlotTrip::combine(bool whole) {
  if (whole) {
    buffer_.combine(prepare_combine());
  } else {
    send_outputs();
    receive_outputs();
  }
  check_combined();
}

void SlotTrip::check_combined() const {
  buffer_.synchronize();
  Tensor const out = memory_.fetch(out_);
  checker_.check_combined(out);
  std::size_t const element = size_of(p_.the.combine_dtype);
  std::vector<std::byte> const between(index(p_.the.extra_stride) * element, poison);
  for (std::int64_t t = 0; t + 1 < out.size(0); ++t) {
    auto const* const at = out.data<std::byte>() + index(t * out.view().stride(0) + p_.the.hidden) * element;
    oracle::expect_bytes({.what = "after a row of out", .rank = rank_, .row = t}, between, at, 1);
  }
}

void SlotTrip::spoil(Tensor const& tensor) const {
  if (!tensor.given()) return;
  std::vector<std::byte> const bytes(span_bytes(tensor), poison);
  memory_.write(tensor, bytes.data());
}

void SlotTrip::release() {
  buffer_.synchronize();
  for (Tensor const* const tensor : {&received_.x, &received_.scales, &received_.counts, &received_.ranges,
                                     &received_.source_token, &received_.topk_idx, &received_.topk_weights}) {
    spoil(*tensor);
  }
  received_ = {};
  outputs_ = {};
}

void slot_round_trip(SlotProblem const& problem, SlotRank& rank, LowLatencyBuffer& buffer, Peers const& peers) {
  for (bool const whole : {false, true}) {
    SlotTrip trip(problem, rank, buffer);
    trip.expect(peers);
    trip.dispatch(whole);
    trip.combine(whole);
    trip.release();
  }
}

void check_masked(LowLatencyBuffer& buffer, Peers const& peers) {
  std::vector<bool> const masked = buffer.masked();
  check_equal(masked.size(), peers.size(), "masked().size");
  for (std::size_t i = 0; i < peers.size(); ++i)
    check_equal(masked[i], peers[i] == Presence::gone, "masked[", i, "] at rank ", buffer.communicator().rank());
}

bool run_slot_case(SlotCase const& c) {
  SlotProblem const problem = make_slot_problem(c);
  return run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(problem, rank, buffer);
    slot_round_trip(problem, rank, buffer);
  });
}

void run_slot_cases(std::vector<SlotCase> const& cases) {
  for (SlotCase const& c : cases) {
    if (!run_slot_case(c)) return;
  }
}

}  // namespace switchyard::test
