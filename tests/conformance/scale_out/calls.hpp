// Calls by chance: what each rank sends to each neighbour follows from a seed alone, so every receiver knows every
// byte.
#pragma once

#include <cstdint>
#include <vector>

#include "conformance/scale_out/ports.hpp"
#include "scale_out/rest.hpp"
#include "support/random.hpp"

namespace switchyard::test {

struct Traffic {
  std::uint64_t seed = 1;
  scale_out::PortSizes sizes{};
  int most_chunks = 20;  // to one neighbour in one call

  // Of one call, from rank to rank.
  [[nodiscard]] std::size_t letter_bytes(std::uint64_t epoch, int from, int to) const;
  [[nodiscard]] int chunks(std::uint64_t epoch, int from, int to) const;
  // Those of chunk `index` at least hold its number.
  [[nodiscard]] std::size_t chunk_bytes(std::uint64_t epoch, int from, int to, int index) const;
};

// One call of a rank, from begin() to its end, with every byte checked. Now and then the rank is slow to give slots
// back, and it gives them back in any order.
class Caller {
 public:
  Caller(scale_out::Port& port, Job const& job, Traffic const& traffic);

  void call(std::uint64_t epoch);
  // A call that ends anywhere, as if it had thrown.
  void abandoned_call(std::uint64_t epoch);

  // That were sent: letters and chunks, and their bytes.
  [[nodiscard]] std::uint64_t writes() const noexcept { return writes_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t credits() const noexcept { return credits_; }

 private:
  struct With {
    int rank = 0;
    bool letter_sent = false;
    bool letter_seen = false;
    int sent = 0;
    std::vector<bool> seen;  // by index
    int num_seen = 0;
  };

  void begin(std::uint64_t epoch);
  void step();
  void write_to(int neighbour);
  void read_from(int neighbour);
  void check_chunk(scale_out::Port::Chunk const& chunk);
  void give_some_back();
  [[nodiscard]] bool done() const;

  scale_out::Port& port_;
  int rank_;
  Traffic traffic_;
  Random random_;
  std::uint64_t epoch_ = 0;
  std::vector<With> withs_;
  scale_out::Rest rest_;
  std::vector<scale_out::Port::Chunk> held_;
  std::uint64_t writes_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t credits_ = 0;
};

}  // namespace switchyard::test
