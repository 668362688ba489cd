#include "process.hpp"

#include <pthread.h>

namespace switchyard::python {

namespace {

unsigned count = 0;

}  // namespace

unsigned forks() noexcept {
  static bool const registered = ::pthread_atfork(nullptr, nullptr, [] { ++count; }) == 0;
  static_cast<void>(registered);
  return count;
}

}  // namespace switchyard::python
