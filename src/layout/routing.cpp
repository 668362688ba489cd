#include "layout/routing.hpp"

namespace switchyard {

std::int64_t Handle::num_tokens() const noexcept {
  return routing_ ? routing_->num_tokens : 0;
}

std::int64_t Handle::num_recv_rows() const noexcept {
  return routing_ ? routing_->placement.rows : 0;
}

namespace {

std::vector<std::int64_t> const none;

}  // namespace

std::vector<std::int64_t> const& Handle::tokens_per_expert() const noexcept {
  return routing_ && routing_->top_k > 0 ? routing_->placement.tokens_per_expert : none;
}

std::vector<std::int64_t> const& Handle::real_tokens_per_expert() const noexcept {
  return routing_ && routing_->top_k > 0 ? routing_->placement.real_tokens_per_expert : none;
}

Tensor Handle::recv_counts() const noexcept {
  if (!routing_ || routing_->device == nullptr) return {};
  return {routing_->recv_counts, routing_->device_owner};
}

std::vector<std::int64_t> const& Handle::recv_rows_end_by_rank() const noexcept {
  return routing_ ? routing_->placement.recv_rows_end : none;
}

}  // namespace switchyard
