// The rows of a dispatch as they travel, in memory of the GPU: the caller's, or what a cast has made of them.
#pragma once

#include "switchyard/tensor.hpp"

namespace switchyard::cuda {

struct TravellingRows {
  ConstTensorView x{};       // [N, H], rows may be strided
  ConstTensorView scales{};  // [N, S] words of 4 bytes with any strides; not given: none
};

}  // namespace switchyard::cuda
