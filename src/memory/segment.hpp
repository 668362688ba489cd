// Memory that ranks share. A symmetric heap is made of such segments.
#pragma once

#include <cstddef>

namespace switchyard {

class Segment {
 public:
  virtual ~Segment() = default;
  Segment(Segment const&) = delete;
  Segment& operator=(Segment const&) = delete;

  // Where this process, or the GPU that it uses, sees the memory. Host code may dereference host segments only.
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 protected:
  explicit Segment(std::size_t bytes) : bytes_(bytes) {}

  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace switchyard
