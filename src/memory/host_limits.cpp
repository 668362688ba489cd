#include "memory/host_limits.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>

namespace switchyard {

namespace {

// Addresses of a process are 47 bits wide, unless it asks for more.
constexpr std::size_t most_addresses = std::size_t{1} << 47;

std::size_t of_system(int name) noexcept {
  long const value = ::sysconf(name);
  return value > 0 ? static_cast<std::size_t>(value) : 0;
}

// 0 where the kernel does not tell.
std::size_t mapped_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0;
  file >> pages;
  return pages * of_system(_SC_PAGESIZE);
}

}  // namespace

std::size_t machine_memory() noexcept {
  return of_system(_SC_PHYS_PAGES) * of_system(_SC_PAGESIZE);
}

std::size_t free_address_space() noexcept {
  rlimit limit{};
  std::size_t most = most_addresses;
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    most = std::min<std::size_t>(most, limit.rlim_cur);
  std::size_t const mapped = mapped_bytes();
  return most > mapped ? most - mapped : 0;
}

}  // namespace switchyard
