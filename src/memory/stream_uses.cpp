#include "memory/stream_uses.hpp"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace switchyard {

namespace {

struct Known {
  std::shared_mutex mutex;
  std::vector<StreamUses*> all;
};

Known& known() {
  // Never destroyed: a tensor in a static variable may release its memory after every other static is gone.
  static Known& the_known = *new Known;
  return the_known;
}

}  // namespace

StreamUses::Entry::Entry(StreamUses& uses) : uses_(uses) {
  std::unique_lock const lock(known().mutex);
  known().all.push_back(&uses_);
}

StreamUses::Entry::~Entry() {
  std::unique_lock const lock(known().mutex);
  std::erase(known().all, &uses_);
}

void note_stream_use(void const* at, std::uintptr_t stream) noexcept {
  std::shared_lock const lock(known().mutex);
  for (StreamUses* const each : known().all)
    if (each->note(static_cast<std::byte const*>(at), stream)) return;
}

}  // namespace switchyard
