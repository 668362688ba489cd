// libfabric 1.17 reads all of /proc/kallsyms twice before it does anything else, 90 ms of CPU in each process, to
// learn whether the kernel lets adapters write into the memory of other devices. Nothing that is tested depends on
// the answer, and hundreds of processes ask.
#pragma once

#include <sched.h>
#include <sys/mount.h>

namespace switchyard::test {

// From here on this process and its children see an empty file there. Where that takes rights which are missing,
// nothing changes. It must have one thread; what it mounts later only its children see.
inline void hide_kernel_symbols() noexcept {
  if (::unshare(CLONE_NEWNS) != 0) return;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return;
  ::mount("/dev/null", "/proc/kallsyms", nullptr, MS_BIND, nullptr);
}

}  // namespace switchyard::test
