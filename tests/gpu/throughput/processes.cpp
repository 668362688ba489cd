// Ranks as processes on one GPU. A suite of its own: a process that has used CUDA must not fork.
#include "gpu/leaver.hpp"

namespace switchyard::test {
namespace {

class GpuProcesses : public GpuProcessTest {};

TEST_F(GpuProcesses, RoundTrips) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded})
    run_gpu_case({.launch = Launch::processes, .ranks = 4, .tokens = 50, .hidden = 256, .layout = layout},
                 {.combine = {.biases = 2, .topk_weights = true}, .outputs = OutputsIn::any_pointer});
}

TEST_F(GpuProcesses, RowsLeaveBeforeTheHostKnowsCounts) {
  Case const base{.launch = Launch::processes, .ranks = 4, .tokens = 90, .counts = Tokens::varied};
  Case skewed = base;
  skewed.routing = Routing::one_expert;
  skewed.hidden = 1024;
  Case fp8 = base;
  fp8.dtype = DType::f8e4m3;
  fp8.hidden = 7168;
  Case cast = base;
  cast.hidden = 300;
  cast.cast = true;
  Case padded = base;
  padded.layout = OutputLayout::expanded;
  padded.alignment = 8;
  padded.zero_padding = true;
  padded.routing = Routing::repeated;
  for (Case const& c : {skewed, fp8, cast, padded}) run_gpu_case(c);
}

TEST_F(GpuProcesses, EightRanks) {
  run_gpu_case({.launch = Launch::processes, .ranks = 8, .tokens = 300, .hidden = 512, .experts = 32, .top_k = 8},
               {.combine = {.topk_weights = true}, .num_sms = 16});
}

TEST_F(GpuProcesses, APeerThatLeaves) {
  expect_leaver_lost(Launch::processes);
}

}  // namespace
}  // namespace switchyard::test
