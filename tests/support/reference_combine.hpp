// What combine must give, computed naively. Expert outputs are made up from (receiver, source, token, slot),
// so every rank knows everybody's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/reference.hpp"

namespace switchyard::test {

// What a combine is given beside the expert outputs.
struct CombineExtras {
  int biases = 0;
  bool row_weights = false;
  bool topk_weights = false;
};

std::vector<std::byte> expert_output(Problem const& p, int receiver, Row const& row);

float row_weight(Problem const& p, int receiver, Row const& row);

// The gradient of slot `slot`'s weight that `receiver` hands back in the row.
float weight_gradient(Problem const& p, int receiver, Row const& row, int slot);

std::vector<std::byte> bias_of(Problem const& p, int rank, int which);

struct Part {
  int receiver;
  Row row;
};

// The rows of a token in the order of the sum: flat by rank; expanded by expert id, then slot.
std::vector<Part> parts_of(Problem const& p, int source, std::int64_t token);

// [N, H] of `rank` in the dtype of the combine.
std::vector<std::byte> combined_x(Problem const& p, int rank, CombineExtras const& extras);

// [N, K] of `rank`: each slot's value from the row on the rank of its expert; 0 for -1.
std::vector<float> combined_weights(Problem const& p, int rank);

}  // namespace switchyard::test
