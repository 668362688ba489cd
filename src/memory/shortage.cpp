#include "memory/shortage.hpp"

#include <mutex>

namespace switchyard {

namespace {

struct Relief {
  std::mutex mutex;
  std::function<void()> function;
};

Relief& relief() {
  static Relief& the_relief = *new Relief;  // never destroyed: threads may outlive static variables
  return the_relief;
}

}  // namespace

void set_shortage_relief(std::function<void()> function) {
  std::lock_guard const lock(relief().mutex);
  relief().function = std::move(function);
}

bool relieve_shortage() {
  std::function<void()> function;
  {
    std::lock_guard const lock(relief().mutex);
    function = relief().function;
  }
  if (!function) return false;
  function();
  return true;
}

}  // namespace switchyard
