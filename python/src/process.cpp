#include "process.hpp"

#include <pthread.h>
#include <unistd.h>

namespace switchyard::python {

namespace {

unsigned count = 0;

}  // namespace

unsigned forks() noexcept {
  static bool const registered = ::pthread_atfork(nullptr, nullptr, [] { ++count; }) == 0;
  static_cast<void>(registered);
  return count;
}

Unusable forked(char const* name, std::string const& owner) {
  return Unusable(std::string(name) + ": it belongs to " + owner + " and cannot be used in its fork " +
                  std::to_string(::getpid()) +
                  ": make the communicator after the fork, or start processes by spawn");
}

}  // namespace switchyard::python
