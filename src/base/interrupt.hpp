// What a wait asks; see switchyard/interrupt.hpp.
#pragma once

namespace switchyard {

// True: the caller of the current thread's call wants it to end.
bool interrupted() noexcept;

}  // namespace switchyard
