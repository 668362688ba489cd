#include "exchange.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "sums.hpp"

namespace mpi_alltoall {

Exchange::Exchange(Options const& options, World const& world)
    : options_(options),
      world_(world),
      first_local_(first_expert(world.rank, world, options.experts)),
      end_local_(first_expert(world.rank + 1, world, options.experts)),
      rank_of_expert_(rank_of_experts(world, options.experts)),
      row_type_(make_type(MPI_UINT16_T, static_cast<std::size_t>(options.hidden))),
      side_type_(make_type(MPI_BYTE, side_bytes())),
      to_(world.size),
      from_(world.size),
      slot_(static_cast<std::size_t>(options.tokens * world.size)) {}

Exchange::~Exchange() {
  MPI_Type_free(&row_type_);
  MPI_Type_free(&side_type_);
}

std::size_t Exchange::side_weights_at() const {
  return static_cast<std::size_t>(options_.top_k) * sizeof(std::int64_t);
}
std::size_t Exchange::side_token_at() const {
  return side_weights_at() + static_cast<std::size_t>(options_.top_k) * sizeof(float);
}
std::size_t Exchange::side_bytes() const {
  return side_token_at() + sizeof(std::int32_t);
}

// Numbers each token's rows within their destination; the first row of a destination is added later.
void Exchange::find_destinations(Inputs const& inputs) {
  std::fill(slot_.begin(), slot_.end(), -1);
  std::fill(to_.rows.begin(), to_.rows.end(), 0);
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    std::int32_t* const slots = slot_.data() + token * world_.size;
    for (int k = 0; k < options_.top_k; ++k) {
      auto const expert =
          static_cast<std::size_t>(inputs.experts[static_cast<std::size_t>(token * options_.top_k + k)]);
      int const rank = rank_of_expert_[expert];
      if (slots[rank] < 0) slots[rank] = to_.rows[static_cast<std::size_t>(rank)]++;
    }
  }
}

void Exchange::exchange_counts() {
  MPI_Alltoall(to_.rows.data(), 1, MPI_INT, from_.rows.data(), 1, MPI_INT, MPI_COMM_WORLD);
  to_.set_first();
  from_.set_first();
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    std::int32_t* const slots = slot_.data() + token * world_.size;
    for (int rank = 0; rank < world_.size; ++rank) {
      if (slots[rank] >= 0) slots[rank] += to_.first[static_cast<std::size_t>(rank)];
    }
  }
}

void Exchange::pack_sides(Inputs const& inputs) {
  std::byte* const sides = sides_out_.at_least(static_cast<std::size_t>(to_.total) * side_bytes());
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    auto const index = static_cast<std::int32_t>(token);
    for (int rank = 0; rank < world_.size; ++rank) {
      std::int32_t const slot = slot_[static_cast<std::size_t>(token * world_.size + rank)];
      if (slot < 0) continue;
      std::byte* const side = sides + static_cast<std::size_t>(slot) * side_bytes();
      std::memcpy(side, inputs.experts.data() + token * options_.top_k, side_weights_at());
      std::memcpy(side + side_weights_at(), inputs.weights.data() + token * options_.top_k,
                  side_token_at() - side_weights_at());
      std::memcpy(side + side_token_at(), &index, sizeof index);
    }
  }
}

// A row is read once and, still in the cache, written to all its places.
void Exchange::pack_rows(Inputs const& inputs) {
  std::uint16_t* const packed = packed_.at_least(static_cast<std::size_t>(to_.total * options_.hidden));
  auto const bytes = static_cast<std::size_t>(options_.hidden) * sizeof(std::uint16_t);
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    std::uint16_t const* const row = inputs.x.data() + token * options_.hidden;
    for (int rank = 0; rank < world_.size; ++rank) {
      std::int64_t const slot = slot_[static_cast<std::size_t>(token * world_.size + rank)];
      if (slot >= 0) std::memcpy(packed + slot * options_.hidden, row, bytes);
    }
  }
}

// Global expert ids become local ones; what is another rank's becomes -1 with weight 0.
void Exchange::unpack_sides() {
  auto const rows = static_cast<std::size_t>(from_.total), top_k = static_cast<std::size_t>(options_.top_k);
  std::int64_t* const experts = experts_.at_least(rows * top_k);
  float* const weights = weights_.at_least(rows * top_k);
  std::int32_t* const tokens = source_tokens_.at_least(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    std::byte const* const side = sides_in_.data() + row * side_bytes();
    std::memcpy(experts + row * top_k, side, side_weights_at());
    std::memcpy(weights + row * top_k, side + side_weights_at(), side_token_at() - side_weights_at());
    std::memcpy(tokens + row, side + side_token_at(), sizeof(std::int32_t));
    for (std::size_t i = row * top_k; i < (row + 1) * top_k; ++i) {
      bool const ours = experts[i] >= first_local_ && experts[i] < end_local_;
      experts[i] = ours ? experts[i] - first_local_ : -1;
      weights[i] = ours ? weights[i] : 0.0F;
    }
  }
}

void Exchange::dispatch(Inputs const& inputs) {
  find_destinations(inputs);
  exchange_counts();
  pack_sides(inputs);
  pack_rows(inputs);
  auto const rows = static_cast<std::size_t>(from_.total);
  all_to_all(sides_out_.data(), to_, sides_in_.at_least(rows * side_bytes()), from_, side_type_);
  all_to_all(packed_.data(), to_, rows_.at_least(rows * static_cast<std::size_t>(options_.hidden)), from_,
             row_type_);
  unpack_sides();
}

void Exchange::sum_token(std::int64_t token, Inputs const& inputs, std::uint16_t* out) {
  std::array<float, sum_block> sums;
  std::array<float, 1024> weight{};  // by rank
  for (int k = 0; k < options_.top_k; ++k) {
    auto const slot = static_cast<std::size_t>(token * options_.top_k + k);
    weight[static_cast<std::size_t>(rank_of_expert_[static_cast<std::size_t>(inputs.experts[slot])])] +=
        inputs.weights[slot];
  }
  for (std::int64_t begin = 0; begin < options_.hidden; begin += sum_block) {
    std::int64_t const count = std::min(sum_block, options_.hidden - begin);
    bool first = true;
    for (int rank = 0; rank < world_.size; ++rank) {
      std::int64_t const slot = slot_[static_cast<std::size_t>(token * world_.size + rank)];
      if (slot < 0) continue;
      auto const* const row = packed_.data() + slot * options_.hidden + begin;
      (first ? set_product : add_product)(sums.data(), row, weight[static_cast<std::size_t>(rank)], count);
      first = false;
    }
    round_to(out + begin, sums.data(), count);
  }
}

void Exchange::combine(std::uint16_t const* expert_rows, Inputs const& inputs, std::uint16_t* out) {
  // The rows come back to where they were packed.
  all_to_all(expert_rows, from_, packed_.data(), to_, row_type_);
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    sum_token(token, inputs, out + token * options_.hidden);
  }
}

}  // namespace mpi_alltoall
