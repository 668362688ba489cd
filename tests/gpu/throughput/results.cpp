// What a dispatch makes beside its work: a copy of the ids, and sums of what experts received.
#include <cstring>

#include "gpu/throughput/gpu_flow.hpp"
#include "gpu/throughput/numbers.hpp"

namespace switchyard::test {
namespace {

class GpuResults : public GpuTest {};

void check_ids(DeviceRank& device, Tensor const& seen, ConstTensorView const& wanted) {
  check(seen.given(), "expected a copy of the ids, seen none");
  check(seen.dtype() == wanted.dtype && seen.size(0) == wanted.size(0) && seen.size(1) == wanted.size(1),
        "the copy of the ids has another shape");
  Tensor const copy = device.download(seen);
  std::size_t const bytes = index(wanted.numel()) * size_of(wanted.dtype);
  check(bytes == 0 || std::memcmp(copy.view().data, wanted.data, bytes) == 0, "the copy has other ids");
}

// Strided as in the middle of wider rows.
ConstTensorView in_wider_rows(ConstTensorView const& dense, std::vector<std::byte>& memory) {
  std::size_t const row = index(dense.size(1)) * size_of(dense.dtype);
  memory.assign(2 * row * index(dense.size(0)) + 1, std::byte{0x55});
  for (std::size_t i = 0; i < index(dense.size(0)); ++i)
    std::memcpy(memory.data() + 2 * i * row, static_cast<std::byte const*>(dense.data) + i * row, row);
  ConstTensorView wide = dense;
  wide.data = memory.data();
  wide.strides[0] = 2 * dense.size(1);
  return wide;
}

void run_results(Case const& c, bool strided = false) {
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    Numbers<std::int64_t> wide(p, device, communicator.rank());
    Numbers<std::int32_t> narrow(p, device, communicator.rank());
    std::vector<std::byte> memory;
    DispatchArgs args = inputs.args();
    if (strided) args.topk_idx = in_wider_rows(args.topk_idx, memory);
    args = device.upload(args);
    args.keep_ids = true;
    args.received_per_expert = wide.view();
    Dispatched const seen = buffer.dispatch(args);
    buffer.synchronize();
    check_ids(device, seen.ids, inputs.ids());
    wide.check_after(1);

    args.keep_ids = false;
    args.received_per_expert = narrow.view();
    check(!buffer.dispatch_async(args).get().ids.given(), "nobody asked for a copy of the ids");
    DispatchArgs again = device.upload(inputs.cached_args(seen.handle));
    again.received_per_expert = wide.view();
    buffer.dispatch(again);
    buffer.synchronize();
    narrow.check_after(1);
    wide.check_after(2);
    communicator.barrier();
  });
}

TEST_F(GpuResults, IdsAndNumbersOfExperts) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
    for (Routing const routing : {Routing::uniform, Routing::sparse, Routing::none, Routing::repeated}) {
      run_results({.ranks = 3, .tokens = 300, .experts = 8, .top_k = 4, .routing = routing, .layout = layout});
      run_results({.ranks = 2,
                   .tokens = 5,
                   .experts = 5,
                   .top_k = 3,
                   .routing = routing,
                   .id_dtype = DType::i32,
                   .layout = layout,
                   .alignment = 16});
    }
  }
}

// Few tokens are shared by several warps, of which one copies; many slots take a lane two of them.
TEST_F(GpuResults, FewTokensAndManySlots) {
  run_results({.ranks = 1, .tokens = 1, .counts = Tokens::equal, .experts = 4, .top_k = 1});
  run_results({.ranks = 2, .tokens = 1500, .experts = 64, .top_k = 40});
  run_results({.ranks = 2, .tokens = 70, .experts = 80, .top_k = 64, .id_dtype = DType::i32});
  run_results({.ranks = 3, .counts = Tokens::all_none, .experts = 3});
}

TEST_F(GpuResults, StridedIds) {
  run_results({.ranks = 2, .tokens = 40, .top_k = 3}, true);
  run_results({.ranks = 2, .tokens = 40, .top_k = 3, .id_dtype = DType::i32}, true);
}

TEST_F(GpuResults, WorstCase) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
    run_results({.ranks = 3, .tokens = 60, .top_k = 3, .layout = layout, .worst = true});
}

}  // namespace
}  // namespace switchyard::test
