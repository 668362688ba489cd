#include "layout/routing.hpp"

namespace switchyard {

std::int64_t Handle::num_tokens() const noexcept {
  return routing_ ? routing_->num_tokens : 0;
}

std::int64_t Handle::num_recv_rows() const noexcept {
  return routing_ ? routing_->placement.rows : 0;
}

std::vector<std::int64_t> const& Handle::recv_rows_end_by_rank() const noexcept {
  static std::vector<std::int64_t> const none;
  return routing_ ? routing_->placement.recv_rows_end : none;
}

}  // namespace switchyard
