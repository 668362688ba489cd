#include "scale_out/mapping.hpp"

#include <sys/mman.h>

#include "base/check.hpp"

namespace switchyard::scale_out {

Mapping::Mapping(std::size_t bytes) {
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) {
    throw OutOfMemory(fmt::format("memory for what crosses between nodes: expected {} bytes, seen: {}", bytes,
                                  text_of_errno(errno)));
  }
  bytes_ = {static_cast<std::byte*>(start), bytes};
  // Old kernels may refuse; then children share the pages until somebody writes to them.
  ::madvise(start, bytes, MADV_DONTFORK);
}

Mapping::~Mapping() {
  ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace switchyard::scale_out
