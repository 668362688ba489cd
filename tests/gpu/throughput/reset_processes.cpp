// Buffer::reset() on the CUDA engine, ranks as processes. A suite of its own: a process that has used CUDA must not
// fork.
#include "gpu/late.hpp"

namespace switchyard::test {
namespace {

class GpuResetProcesses : public GpuProcessTest {};

TEST_F(GpuResetProcesses, AfterADispatch) {
  expect_dispatches_timed_out(Launch::processes);
}

TEST_F(GpuResetProcesses, AfterACombineThatIsMadeAgain) {
  expect_combines_timed_out(Launch::processes);
}

}  // namespace
}  // namespace switchyard::test
