#include "transport/checks.hpp"

namespace switchyard::transport {
namespace {

// Sums of offsets and sizes from callers may overflow, differences of what was compared do not.
void check_range(std::string_view name, std::size_t offset, std::size_t bytes, std::size_t size) {
  require(offset <= size && bytes <= size - offset, "{}: expected {} bytes within a region of {}, seen offset {}",
          name, bytes, size, offset);
}

}  // namespace

void check_write(Write const& write, WriteBounds const& bounds) {
  require(write.from != nullptr || write.bytes == 0, "Write::bytes: expected 0 without a region, seen {}",
          write.bytes);
  require(write.bytes <= bounds.most_bytes, "Write::bytes: expected at most {}, seen {}", bounds.most_bytes,
          write.bytes);
  require(write.context != Event::no_context, "Write::context: expected less than Event::no_context, seen {}",
          write.context);
  if (write.from != nullptr) check_range("Write::from_offset", write.from_offset, write.bytes, bounds.from_bytes);
  check_range("Write::into_offset", write.into_offset, write.bytes, bounds.into_bytes);
}

}  // namespace switchyard::transport
