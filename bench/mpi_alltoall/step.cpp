#include "step.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "sums.hpp"

namespace mpi_alltoall {

Step::Step(Options const& options, World const& world)
    : options_(options),
      world_(world),
      local_experts_(first_expert(world.rank + 1, world, options.experts) -
                     first_expert(world.rank, world, options.experts)),
      width_((options.experts + world.size - 1) / world.size),
      rank_of_expert_(rank_of_experts(world, options.experts)),
      row_type_(make_type(MPI_UINT16_T, static_cast<std::size_t>(options.hidden))),
      to_(world.size),
      from_(world.size),
      to_expert_(static_cast<std::size_t>(world.size * width_)),
      from_expert_(to_expert_.size()),
      next_of_expert_(static_cast<std::size_t>(options.experts)),
      slot_(static_cast<std::size_t>(options.tokens * options.top_k)) {
  for (int rank = 0; rank < world.size; ++rank)
    first_of_rank_.push_back(first_expert(rank, world, options.experts));
}

Step::~Step() {
  MPI_Type_free(&row_type_);
}

void Step::count_rows(Inputs const& inputs) {
  std::fill(to_expert_.begin(), to_expert_.end(), 0);
  for (std::int64_t const expert : inputs.experts) {
    int const rank = rank_of_expert_[static_cast<std::size_t>(expert)];
    int const local = static_cast<int>(expert) - first_of_rank_[static_cast<std::size_t>(rank)];
    ++to_expert_[count_at(rank, local)];
  }
}

// Where each row goes in the packed order: by expert, and within it by token.
void Step::place_rows(Inputs const& inputs) {
  int next = 0;
  for (std::size_t expert = 0; expert < next_of_expert_.size(); ++expert) {
    int const rank = rank_of_expert_[expert];
    int const local = static_cast<int>(expert) - first_of_rank_[static_cast<std::size_t>(rank)];
    next_of_expert_[expert] = next;
    next += to_expert_[count_at(rank, local)];
  }
  for (std::size_t i = 0; i < slot_.size(); ++i)
    slot_[i] = next_of_expert_[static_cast<std::size_t>(inputs.experts[i])]++;
}

// A row is read once and, still in the cache, written to all its places.
void Step::pack_rows(Inputs const& inputs) {
  std::uint16_t* const packed = packed_.at_least(slot_.size() * static_cast<std::size_t>(options_.hidden));
  auto const bytes = static_cast<std::size_t>(options_.hidden) * sizeof(std::uint16_t);
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    std::uint16_t const* const row = inputs.x.data() + token * options_.hidden;
    for (int k = 0; k < options_.top_k; ++k) {
      std::int64_t const slot = slot_[static_cast<std::size_t>(token * options_.top_k + k)];
      std::memcpy(packed + slot * options_.hidden, row, bytes);
    }
  }
}

void Step::set_sources() {
  for (int rank = 0; rank < world_.size; ++rank) {
    auto const sum = [&](std::vector<int> const& counts) {
      auto const first = counts.begin() + rank * width_;
      int total = 0;
      for (auto it = first; it != first + width_; ++it) total += *it;
      return total;
    };
    to_.rows[static_cast<std::size_t>(rank)] = sum(to_expert_);
    from_.rows[static_cast<std::size_t>(rank)] = sum(from_expert_);
  }
  to_.set_first();
  from_.set_first();
}

template <typename Move>
void Step::for_each_part(Move const& move) const {
  std::vector<std::int64_t> by_source(from_.first.begin(), from_.first.end());
  std::int64_t by_expert = 0;
  for (int expert = 0; expert < local_experts_; ++expert) {
    for (int source = 0; source < world_.size; ++source) {
      int const rows = count(expert, source);
      move(by_source[static_cast<std::size_t>(source)] * options_.hidden, by_expert * options_.hidden,
           static_cast<std::size_t>(rows * options_.hidden) * sizeof(std::uint16_t));
      by_source[static_cast<std::size_t>(source)] += rows;
      by_expert += rows;
    }
  }
}

void Step::dispatch(Inputs const& inputs) {
  count_rows(inputs);
  MPI_Request counts = MPI_REQUEST_NULL;
  MPI_Ialltoall(to_expert_.data(), width_, MPI_INT, from_expert_.data(), width_, MPI_INT, MPI_COMM_WORLD, &counts);
  place_rows(inputs);
  pack_rows(inputs);
  MPI_Wait(&counts, MPI_STATUS_IGNORE);
  set_sources();
  auto const elements = static_cast<std::size_t>(from_.total * options_.hidden);
  std::uint16_t* const arrived = arrived_.at_least(elements);
  all_to_all(packed_.data(), to_, arrived, from_, row_type_);
  std::uint16_t* const rows = rows_.at_least(elements);
  for_each_part([&](std::int64_t by_source, std::int64_t by_expert, std::size_t bytes) {
    std::memcpy(rows + by_expert, arrived + by_source, bytes);
  });
}

void Step::sum_token(std::int64_t token, Inputs const& inputs, std::uint16_t* out) const {
  std::array<float, sum_block> sums;
  for (std::int64_t begin = 0; begin < options_.hidden; begin += sum_block) {
    std::int64_t const count = std::min(sum_block, options_.hidden - begin);
    for (int k = 0; k < options_.top_k; ++k) {
      auto const at = static_cast<std::size_t>(token * options_.top_k + k);
      auto const* const row = packed_.data() + slot_[at] * options_.hidden + begin;
      (k == 0 ? set_product : add_product)(sums.data(), row, inputs.weights[at], count);
    }
    round_to(out + begin, sums.data(), count);
  }
}

void Step::combine(std::uint16_t const* outputs, Inputs const& inputs, std::uint16_t* out) {
  std::uint16_t* const leaving = arrived_.data();
  for_each_part([&](std::int64_t by_source, std::int64_t by_expert, std::size_t bytes) {
    std::memcpy(leaving + by_source, outputs + by_expert, bytes);
  });
  // The rows come back to where they were packed.
  all_to_all(leaving, from_, packed_.data(), to_, row_type_);
  for (std::int64_t token = 0; token < options_.tokens; ++token) {
    sum_token(token, inputs, out + token * options_.hidden);
  }
}

}  // namespace mpi_alltoall
