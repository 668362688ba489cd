// The sums of a combine over nodes on the GPU: what this rank has placed for ranks of other nodes is summed over
// the ranks of its node and goes back in chunks, and what comes back for this rank's tokens is added to the sum of
// its own node. The host says what goes into each sum, in lists; kernels add.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "call/hosted/combine_streams.hpp"
#include "call/hosted/row_mover.hpp"
#include "engine/cuda/throughput/over_nodes/batches.hpp"
#include "engine/cuda/throughput/over_nodes/lists.hpp"

namespace switchyard::cuda {

// The lists of one launch.
struct SumLists {
  List<SumRow> rows;
  List<SumTerm> terms;
  List<SumNumber> numbers;
  List<float const*> number_terms;

  explicit SumLists(std::span<std::byte> memory);
};

// Whether a token's rows and weights fit into the lists of a launch, which lie in `memory`.
bool fits_into_launch(CombineCall const& call, int num_nodes, std::span<std::byte> memory);

class CombineWork {
 public:
  // Both must outlive the work.
  CombineWork(PullTask const& task, Batches& batches);

  // Sends what goes back, and sums all tokens of this rank. Fails the buffer when that cannot be.
  void run();

 private:
  using Steps = std::vector<std::function<void()>>;
  // Sums on their way back, and the chunk of them that is being filled.
  struct Back {
    SumsBack sums;
    std::optional<scale_out::Port::Room> room{};
    std::size_t bytes = 0;
  };
  // A row of the expert outputs of a rank of this node.
  struct RowAt {
    int rank = 0;  // of the job
    std::int64_t row = 0;
  };

  [[nodiscard]] bool done() const;
  [[nodiscard]] int awaited() const;
  bool launch_some();
  void launch(SumLists const& lists, Steps steps);
  // Whether any token still fits, and its weights.
  [[nodiscard]] bool has_room(SumLists const& lists) const;
  void fill_chunks(SumLists& lists, Steps& steps);
  bool fill(Back& back, SumLists& lists, Steps& steps);
  void add_back(SumLists& lists, scale_out::PlacedTokens const& tokens, scale_out::CombineWriter::Row const& to);
  void add_back_weights(SumLists& lists, scale_out::PlacedTokens const& tokens,
                        scale_out::CombineWriter::Row const& to);
  bool take_chunks();
  void sum_tokens(SumLists& lists, Steps& steps);
  bool sum_next(SumLists& lists, Steps& steps);
  void add_terms(SumLists& lists, std::int64_t token);
  void add_weights(SumLists& lists, std::int64_t token);
  void add_own_weights(SumLists& lists, std::int64_t token, std::int64_t slot);
  [[nodiscard]] float const* weight_from(ReturnedRows const& from, std::int64_t slot) const;
  [[nodiscard]] SumTerm term_of(RowAt const& at) const;
  [[nodiscard]] float const* weight_at(RowAt const& at, std::int64_t slot) const;
  [[nodiscard]] RowAt at(scale_out::PlacedRow const& row) const;
  [[nodiscard]] bool expanded() const;
  void send(scale_out::Port::Room const& room, std::size_t bytes);

  PullTask const& task_;
  Batches& batches_;
  Crossing& crossing_;
  CombineArgs const& args_;
  detail::Routing const& routing_;
  std::uint32_t width_;
  std::vector<Back> back_;
  std::vector<ReturnedRows> returned_;  // by way
  std::int64_t next_token_ = 0;
  std::size_t next_back_ = 0;  // whose turn it is
};

}  // namespace switchyard::cuda
