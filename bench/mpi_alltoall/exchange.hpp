// Dispatch and combine as a user of MPI would write them: each token goes once to every rank that holds one
// of its experts.
//
// Rows travel packed by destination in one MPI_Alltoallv with a datatype of one row (so that counts fit an
// int). They arrive sorted by source and, within it, by token, because that is the order of packing: no copy
// is needed on the receiving side, but for the small part beside the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "all_to_all.hpp"
#include "options.hpp"
#include "routing.hpp"

namespace mpi_alltoall {

class Exchange {
 public:
  Exchange(Options const& options, World const& world);
  ~Exchange();
  Exchange(Exchange const&) = delete;
  Exchange& operator=(Exchange const&) = delete;

  // Afterwards rows(), experts(), weights() and source_tokens() hold what arrived.
  void dispatch(Inputs const& inputs);
  // Sends `expert_rows`, as many as arrived, back; out[t] = the sum of token t's rows, each times the weights
  // that t gives the experts of the rank where the row was.
  void combine(std::uint16_t const* expert_rows, Inputs const& inputs, std::uint16_t* out);

  [[nodiscard]] int received() const { return from_.total; }
  [[nodiscard]] Counts const& from() const { return from_; }
  [[nodiscard]] std::uint16_t* rows() const { return rows_.data(); }
  [[nodiscard]] std::int64_t const* experts() const { return experts_.data(); }  // local ids, -1: not ours
  [[nodiscard]] float const* weights() const { return weights_.data(); }
  [[nodiscard]] std::int32_t const* source_tokens() const { return source_tokens_.data(); }

 private:
  void find_destinations(Inputs const& inputs);
  void exchange_counts();
  void pack_sides(Inputs const& inputs);
  void pack_rows(Inputs const& inputs);
  void unpack_sides();
  void sum_token(std::int64_t token, Inputs const& inputs, std::uint16_t* out);

  // Beside each row travels: top_k expert ids, top_k weights, the token's index, in one piece.
  [[nodiscard]] std::size_t side_bytes() const;
  [[nodiscard]] std::size_t side_weights_at() const;
  [[nodiscard]] std::size_t side_token_at() const;

  Options options_;
  World world_;
  int first_local_, end_local_;
  std::vector<int> rank_of_expert_;
  MPI_Datatype row_type_, side_type_;

  Counts to_, from_;
  // Per (token, rank): the row in the packed order, -1 where the token does not go.
  std::vector<std::int32_t> slot_;
  Warm<std::uint16_t> packed_, rows_;
  Warm<std::byte> sides_out_, sides_in_;
  Warm<std::int64_t> experts_;
  Warm<float> weights_;
  Warm<std::int32_t> source_tokens_;
};

}  // namespace mpi_alltoall
