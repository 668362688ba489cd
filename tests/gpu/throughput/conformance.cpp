// Dispatch and combine on the CUDA engine, compared with the reference.
#include "gpu/throughput/gpu_flow.hpp"

namespace switchyard::test {
namespace {

class GpuConformance : public GpuTest {};

TEST_F(GpuConformance, OneRank) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
    run_gpu_case({.ranks = 1, .layout = layout});
}

// More tokens than warps begin with, so that warps take what others have left.
TEST_F(GpuConformance, TokensSharedOut) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
    run_gpu_case({.ranks = 1, .tokens = 1500, .hidden = 64, .layout = layout});
}

// Small enough for compute-sanitizer, and large enough for every phase: rows by the copy engine, scales, padding.
TEST_F(GpuConformance, OneRankEveryPhase) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
    run_gpu_case({.ranks = 1,
                  .tokens = 30,
                  .hidden = 2048,
                  .experts = 6,
                  .top_k = 3,
                  .layout = layout,
                  .alignment = 4,
                  .zero_padding = true},
                 {.combine = {.biases = 2, .topk_weights = true}});
    run_gpu_case({.ranks = 1, .tokens = 30, .hidden = 1024, .dtype = DType::f8e4m3, .layout = layout});
    run_gpu_case({.ranks = 1, .tokens = 30, .hidden = 300, .cast = true, .layout = layout},
                 {.outputs = OutputsIn::odd_pointer});
  }
}

TEST_F(GpuConformance, Dtypes) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::int64_t const hidden : {1, 20, 64, 136, 1000}) {
      run_gpu_case({.ranks = 3, .tokens = 40, .hidden = hidden, .dtype = dtype, .combine_dtype = dtype});
    }
  }
}

TEST_F(GpuConformance, Fp8) {
  for (bool const by_column : {false, true}) {
    run_gpu_case({.ranks = 3, .tokens = 50, .hidden = 384, .dtype = DType::f8e4m3, .scales_by_column = by_column});
    run_gpu_case({.ranks = 2, .tokens = 50, .hidden = 300, .dtype = DType::f8e4m3, .scales_by_column = by_column});
  }
}

TEST_F(GpuConformance, Cast) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::int64_t const hidden : {128, 300, 7})
      run_gpu_case({.ranks = 2, .tokens = 30, .hidden = hidden, .dtype = dtype, .cast = true});
  }
}

TEST_F(GpuConformance, Routings) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
      run_gpu_case(
          {.ranks = 3, .tokens = 70, .hidden = 64, .experts = 7, .top_k = 3, .routing = routing, .layout = layout},
          {.combine = {.biases = 2, .row_weights = true, .topk_weights = true}});
    }
  }
}

TEST_F(GpuConformance, TokenCounts) {
  for (Tokens const counts :
       {Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none}) {
    for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
      run_gpu_case({.ranks = 3, .tokens = 33, .counts = counts, .hidden = 72, .layout = layout},
                   {.combine = {.topk_weights = true}});
  }
}

TEST_F(GpuConformance, ManyTokensManySlots) {
  run_gpu_case({.ranks = 2, .tokens = 3000, .hidden = 32, .experts = 64, .top_k = 8},
               {.combine = {.topk_weights = true}});
  run_gpu_case({.ranks = 2,
                .tokens = 3000,
                .hidden = 32,
                .experts = 64,
                .top_k = 8,
                .layout = OutputLayout::expanded,
                .alignment = 16,
                .zero_padding = true});
  run_gpu_case(
      {.ranks = 2, .tokens = 200, .hidden = 32, .experts = 200, .top_k = 64, .layout = OutputLayout::expanded});
  run_gpu_case({.ranks = 2, .tokens = 200, .hidden = 32, .experts = 5000, .top_k = 9});
}

TEST_F(GpuConformance, ByTokenInRank) {
  run_gpu_case({.ranks = 3, .tokens = 40, .hidden = 48, .by_rank = true});
}

TEST_F(GpuConformance, Int32IdsNoWeightsStrides) {
  run_gpu_case({.ranks = 3, .tokens = 40, .hidden = 48, .id_dtype = DType::i32, .weights = false});
  run_gpu_case({.ranks = 3, .tokens = 40, .hidden = 48, .extra_stride = 8});
  run_gpu_case({.ranks = 3, .tokens = 40, .hidden = 48, .extra_stride = 3});
}

// Also where the routes know no slots.
TEST_F(GpuConformance, WeightsOfAllRanks) {
  GpuExtras const extras{.combine = {.biases = 1, .topk_weights = true, .weights_of_all_ranks = true},
                         .outputs = OutputsIn::mixed};
  for (Routing const routing : {Routing::uniform, Routing::skewed}) {
    run_gpu_case({.ranks = 4, .tokens = 300, .hidden = 64, .experts = 20, .top_k = 9, .routing = routing}, extras);
  }
  run_gpu_case({.ranks = 3, .tokens = 40, .hidden = 49, .by_rank = true}, extras);
}

TEST_F(GpuConformance, OutputsFromAnywhere) {
  for (OutputsIn const outputs : {OutputsIn::heap, OutputsIn::any_pointer, OutputsIn::odd_pointer}) {
    for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
      run_gpu_case({.ranks = 3, .tokens = 60, .hidden = 200, .layout = layout},
                   {.combine = {.biases = 1, .row_weights = true, .topk_weights = true}, .outputs = outputs});
  }
}

// Rows are staged on some ranks while peers already pull rows that need no staging.
TEST_F(GpuConformance, StreamedOutputs) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse}) {
    Case const c{.ranks = 4, .tokens = 300, .hidden = 1024, .experts = 9, .top_k = 4, .routing = routing};
    run_gpu_case(c, {.combine = {.row_weights = true, .topk_weights = true}, .outputs = OutputsIn::any_pointer});
    run_gpu_case(c, {.combine = {.biases = 2}, .outputs = OutputsIn::mixed});
    run_gpu_case(c, {.outputs = OutputsIn::mixed, .odd_out = true});
  }
  run_gpu_case({.ranks = 8, .tokens = 200, .hidden = 7168, .experts = 32, .top_k = 8},
               {.outputs = OutputsIn::any_pointer});
  run_gpu_case({.ranks = 10, .tokens = 70, .hidden = 512, .experts = 40, .top_k = 20},
               {.outputs = OutputsIn::any_pointer, .num_sms = 2});
  run_gpu_case({.ranks = 2, .tokens = 1, .counts = Tokens::first_only, .hidden = 64},
               {.outputs = OutputsIn::any_pointer});
}

TEST_F(GpuConformance, AnyNumberOfSms) {
  for (int const sms : {1, 2, 5, 16}) run_gpu_case({.ranks = 3, .tokens = 500, .hidden = 256}, {.num_sms = sms});
}

TEST_F(GpuConformance, LargeRows) {
  run_gpu_case({.ranks = 2, .tokens = 100, .hidden = 7168, .experts = 32, .top_k = 8});
  run_gpu_case({.ranks = 2, .tokens = 60, .hidden = 20000, .dtype = DType::f32});
}

TEST_F(GpuConformance, EightRanks) {
  run_gpu_case({.ranks = 8, .tokens = 100, .hidden = 512, .experts = 32, .top_k = 8},
               {.combine = {.topk_weights = true}});
}

TEST_F(GpuConformance, Worst) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
    run_gpu_case({.ranks = 3,
                  .tokens = 40,
                  .hidden = 64,
                  .experts = 7,
                  .top_k = 3,
                  .layout = layout,
                  .zero_padding = true,
                  .worst = true});
}

TEST_F(GpuConformance, Cached) {
  for (Case const& c :
       {Case{.ranks = 3, .tokens = 40, .hidden = 64}, Case{.ranks = 3, .tokens = 40, .hidden = 300, .cast = true},
        Case{.ranks = 3, .tokens = 40, .layout = OutputLayout::expanded, .alignment = 8, .zero_padding = true},
        Case{.ranks = 3, .tokens = 40, .worst = true}, Case{.ranks = 3, .tokens = 40, .by_rank = true}}) {
    Problem const p = make_problem(c);
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      DeviceRank device(communicator.rank());
      communicator.barrier();
      Buffer buffer(communicator, gpu_options_for(p, 8));
      RankInputs const inputs(p, communicator.rank());
      Handle const handle = gpu_dispatch(p, buffer, device, inputs.args());
      for (int i = 0; i < 2; ++i) {
        Handle const same = gpu_dispatch(p, buffer, device, inputs.cached_args(handle), Travel::cached);
        gpu_combine(p, buffer, device, same, {});
      }
      DispatchArgs again = inputs.args();  // ids and weights travel along the handle
      again.handle = handle;
      again.num_worst_tokens = 0;
      if (!c.by_rank) gpu_dispatch(p, buffer, device, again, Travel::cached_with_ids);
      communicator.barrier();
    });
  }
}

}  // namespace
}  // namespace switchyard::test
