// A decoding step as a user of MPI would write it: a row for each (token, expert), so that experts get theirs
// packed one expert after another, ready for a grouped GEMM.
//
// Rows travel packed by expert, and so by rank, in one MPI_Alltoallv, while only their counts say what they are.
// They arrive by source and, within it, by expert; a copy puts the parts of an expert together. Outputs go the same
// way back. Counts are under way while rows are packed.
#pragma once

#include <cstdint>
#include <vector>

#include "all_to_all.hpp"
#include "options.hpp"
#include "routing.hpp"

namespace mpi_alltoall {

class Step {
 public:
  Step(Options const& options, World const& world);
  ~Step();
  Step(Step const&) = delete;
  Step& operator=(Step const&) = delete;

  // Afterwards rows() holds what arrived: by local expert, source and token.
  void dispatch(Inputs const& inputs);
  // Sends `outputs`, in the order of rows(), back; out[t] = the sum of token t's rows, in the order of its experts,
  // each times its weight.
  void combine(std::uint16_t const* outputs, Inputs const& inputs, std::uint16_t* out);

  [[nodiscard]] int received() const { return from_.total; }
  [[nodiscard]] std::uint16_t const* rows() const { return rows_.data(); }
  // Rows of a local expert from a source.
  [[nodiscard]] int count(int expert, int source) const { return from_expert_[count_at(source, expert)]; }
  [[nodiscard]] int local_experts() const { return local_experts_; }

 private:
  [[nodiscard]] std::size_t count_at(int rank, int expert) const {
    return static_cast<std::size_t>(rank) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(expert);
  }
  void count_rows(Inputs const& inputs);
  void place_rows(Inputs const& inputs);
  void pack_rows(Inputs const& inputs);
  void set_sources();
  // Rows by source to rows by expert, or the other way round: calls move(row by source, row by expert, count).
  template <typename Move>
  void for_each_part(Move const& move) const;
  void sum_token(std::int64_t token, Inputs const& inputs, std::uint16_t* out) const;

  Options options_;
  World world_;
  int local_experts_;
  int width_;  // most local experts of a rank: as many counts travel to each
  std::vector<int> rank_of_expert_;
  std::vector<int> first_of_rank_;
  MPI_Datatype row_type_;

  Counts to_, from_;
  std::vector<int> to_expert_, from_expert_;  // [ranks][width]
  std::vector<int> next_of_expert_;
  std::vector<int> slot_;  // [tokens][top_k]: the row in the packed order
  Warm<std::uint16_t> packed_, arrived_, rows_;
};

}  // namespace mpi_alltoall
