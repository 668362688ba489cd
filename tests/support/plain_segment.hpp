// A segment in this process's own memory, zero at first, for ranks that are threads.
#pragma once

#include <cstddef>
#include <vector>

#include "layout/control.hpp"
#include "memory/segment.hpp"

namespace switchyard::test {

class PlainSegment final : public Segment {
 public:
  // `bytes`: whole pages.
  explicit PlainSegment(std::size_t bytes) : Segment(bytes, bytes), memory_(bytes / page_bytes) {
    data_ = reinterpret_cast<std::byte*>(memory_.data());
  }

 private:
  struct alignas(page_bytes) Page {
    std::byte bytes[page_bytes];
  };
  std::vector<Page> memory_;
};

}  // namespace switchyard::test
