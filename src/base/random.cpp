#include "base/random.hpp"

#include <sys/random.h>

#include "base/check.hpp"

namespace switchyard {

void fill_random(std::span<std::byte> bytes) {
  // The call is interrupted only before the kernel's generator is seeded.
  while (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    if (errno != EINTR) throw_errno("getrandom");
}

}  // namespace switchyard
