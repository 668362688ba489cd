// Numbers of a rank's experts in GPU memory, to which a dispatch adds what they receive.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gpu/throughput/device_rank.hpp"

namespace switchyard::test {

// How often all ranks' tokens chose each expert of a rank: the first ranks hold one expert more than the others.
inline std::vector<std::int64_t> chosen_experts(Problem const& p, int rank) {
  int const each = p.the.experts / p.the.ranks;
  int const more = p.the.experts % p.the.ranks;
  int const first = rank * each + std::min(rank, more);
  std::vector<std::int64_t> chosen(index(each + (rank < more ? 1 : 0)));
  for (RankInput const& input : p.inputs) {
    for (std::int64_t const id : input.ids)
      if (id >= first && index(id - first) < chosen.size()) ++chosen[index(id - first)];
  }
  return chosen;
}

// Every second number in memory is one of an expert; those between must stay.
template <typename Number>
class Numbers {
 public:
  Numbers(Problem const& p, DeviceRank& device, int rank) : chosen_(chosen_experts(p, rank)), device_(device) {
    std::vector<Number> const host(2 * chosen_.size(), start);
    TensorView whole(const_cast<Number*>(host.data()), dtype, {static_cast<std::int64_t>(host.size())});
    ConstTensorView const placed = device.upload(whole);
    whole_ = TensorView(const_cast<void*>(placed.data), dtype, {placed.size(0)});
    whole_.device = Device::cuda;
  }

  [[nodiscard]] TensorView view() const {
    TensorView numbers = whole_;
    numbers.shape[0] /= 2;
    numbers.strides[0] = 2;
    return numbers;
  }

  // After so many dispatches.
  void check_after(int times) {
    Tensor const seen = device_.download(Tensor(whole_, nullptr));
    auto const* const numbers = seen.data<Number>();
    for (std::size_t expert = 0; expert < chosen_.size(); ++expert) {
      auto const wanted = static_cast<Number>(start + times * chosen_[expert]);
      check(numbers[2 * expert] == wanted, "local expert ", expert, ": expected ", wanted, ", seen ",
            numbers[2 * expert]);
      check(numbers[2 * expert + 1] == start, "behind local expert ", expert, ": expected ", start, ", seen ",
            numbers[2 * expert + 1]);
    }
  }

 private:
  static constexpr Number start = 7;
  static constexpr DType dtype = sizeof(Number) == 8 ? DType::i64 : DType::i32;

  std::vector<std::int64_t> chosen_;
  DeviceRank& device_;
  TensorView whole_;
};

}  // namespace switchyard::test
