// For programs that use libfabric in their own process.
#include "support/kernel_symbols.hpp"

namespace switchyard::test {
namespace {

// Before anything starts a thread.
bool const hidden = (hide_kernel_symbols(), true);

}  // namespace
}  // namespace switchyard::test
