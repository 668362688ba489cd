#include "engine/cpu/throughput/place.hpp"

#include <algorithm>
#include <cstring>

#include "engine/cpu/simd/kernels.hpp"

namespace switchyard::cpu {

RowSource row_source(DispatchArgs const& args) {
  return {args.x, args.scales, args.cast_to_fp8 ? SendCast::fp8 : SendCast::none};
}

void RowWriter::write(TokenChunks& chunks) const {
  RowLoader loader(source());
  chunks.for_each([&](std::int64_t token) {
    if (has_rows(token)) store_rows(token, loader.load(token));
  });
  store_fence();  // the release of the flags does not order non-temporal stores
}

bool RowWriter::has_rows(std::int64_t token) const {
  return std::ranges::any_of(routing_.table.of(token), [this](Route const& route) { return is_here(route); });
}

void RowWriter::store_rows(std::int64_t token, LoadedRow const& row) const {
  for (Route const& route : routing_.table.of(token))
    if (is_here(route)) store_row(route, token, row);
}

void RowWriter::store_row(Route const& route, std::int64_t token, LoadedRow const& row) const {
  Destination const& to = destinations_[static_cast<std::size_t>(route.rank)];
  auto const at = static_cast<std::size_t>(route.row);
  prefetch_row(to, at + 1);
  stream_copy(to.x + at * shape_.row_bytes, row.x, shape_.row_bytes);
  if (row.scales != nullptr) std::memcpy(to.scales + at * shape_.scale_bytes, row.scales, shape_.scale_bytes);
  store_at<std::int32_t>(to.source_token, route.row, static_cast<std::int32_t>(token));
  if (!call_.args.topk_idx.given()) return;
  if (!expanded()) {
    store_topk(to, route, token);
  } else if (shape_.weight_bytes > 0) {
    store_at<float>(to.topk_weights, route.row, weight_at(call_.args.topk_weights, token, route.slot));
  }
}

// The few bytes that go with a row are plain stores. One that misses the cache holds up every store behind it, so
// their lines are prefetched one row ahead: rows of one destination are written in order. Past the end of the block
// the prefetch has no effect.
void RowWriter::prefetch_row(Destination const& to, std::size_t row) const {
  __builtin_prefetch(to.topk_idx + row * shape_.topk_bytes, 1);
  __builtin_prefetch(to.topk_weights + row * shape_.weight_bytes, 1);
  __builtin_prefetch(to.scales + row * shape_.scale_bytes, 1);
  __builtin_prefetch(to.source_token + row * sizeof(std::int32_t), 1);
}

void RowWriter::store_topk(Destination const& to, Route const& route, std::int64_t token) const {
  ConstTensorView const& ids = call_.args.topk_idx;
  for (std::int64_t slot = 0; slot < routing_.top_k; ++slot) {
    std::int64_t const local = topk_at(ids, token, slot) - to.first_expert;
    bool const theirs = local >= 0 && local < to.local_experts;
    std::int64_t const at = route.row * routing_.top_k + slot;
    if (shape_.topk_bytes > 0) {
      if (ids.dtype == DType::i64) {
        store_at<std::int64_t>(to.topk_idx, at, theirs ? local : -1);
      } else {
        store_at<std::int32_t>(to.topk_idx, at, theirs ? static_cast<std::int32_t>(local) : -1);
      }
    }
    if (shape_.weight_bytes > 0) {
      store_at<float>(to.topk_weights, at, theirs ? weight_at(call_.args.topk_weights, token, slot) : 0.0F);
    }
  }
}

void RowWriter::fill_padding(Destination const& own) const {
  Placement const& placement = routing_.placement;
  std::int64_t end = 0;
  if (expanded()) {
    for (std::size_t expert = 0; expert < placement.tokens_per_expert.size(); ++expert) {
      std::int64_t const next = end + placement.tokens_per_expert[expert];
      for (std::int64_t row = end + placement.real_tokens_per_expert[expert]; row < next; ++row)
        fill_padding_row(own, row);
      end = next;
    }
  }
  for (std::int64_t row = placement.rows; row < shape_.rows; ++row) fill_padding_row(own, row);
}

void RowWriter::fill_padding_row(Destination const& own, std::int64_t row) const {
  auto const at = static_cast<std::size_t>(row);
  store_at<std::int32_t>(own.source_token, row, -1);
  std::memset(own.topk_weights + at * shape_.weight_bytes, 0, shape_.weight_bytes);
  std::memset(own.topk_idx + at * shape_.topk_bytes, 0xff, shape_.topk_bytes);  // -1 in either width
  if (!call_.args.zero_padding) return;
  std::memset(own.x + at * shape_.row_bytes, 0, shape_.row_bytes);
  std::memset(own.scales + at * shape_.scale_bytes, 0, shape_.scale_bytes);
}

}  // namespace switchyard::cpu
