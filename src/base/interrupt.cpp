#include "base/interrupt.hpp"

#include "switchyard/interrupt.hpp"

namespace switchyard {

namespace {

thread_local InterruptCheck current = nullptr;

}  // namespace

InterruptScope::InterruptScope(InterruptCheck check) noexcept : before_(current) {
  current = check;
}

InterruptScope::~InterruptScope() {
  current = before_;
}

bool interrupted() noexcept {
  return current != nullptr && current();
}

}  // namespace switchyard
