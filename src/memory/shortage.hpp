// What to do when a GPU has no memory left for a heap to grow: what the process caches elsewhere may be freed.
#pragma once

#include <functional>

namespace switchyard {

// Replaces what was set before. It may be called by any thread that makes a call of a buffer, and must not make
// one.
void set_shortage_relief(std::function<void()> relief);

// Calls it. Returns false when there is none.
bool relieve_shortage();

}  // namespace switchyard
