// One rank: dispatches and multiplies, alone, one after the other and together.
#pragma once

#include <array>
#include <cstdint>

#include "device.hpp"
#include "inputs.hpp"
#include "kernels.hpp"
#include "switchyard/switchyard.hpp"
#include "timing.hpp"

namespace example {

struct Setup {
  int device = 0;
  int sms = 8;  // that a dispatch takes
  int tokens = 4096;
};

class Rank {
 public:
  Rank(switchyard::Communicator communicator, Setup const& setup);
  // Collective.
  Measured measure();

 private:
  enum class Order { dispatch_alone, product_alone, one_after_the_other, together };

  switchyard::Pending<switchyard::Dispatched> start_dispatch();
  void start_product();
  Run run(Order order);
  Run finish(Order order);
  Run median(Order order);
  void choose_width();
  [[nodiscard]] Product product() const;

  // Of GPU memory.
  struct Stamps {
    Span product;
    unsigned long long dispatch_end = 0;
  };

  switchyard::Communicator communicator_;
  Job job_;
  std::array<char, 16> gpu_;
  int product_blocks_;
  int width_;
  int run_ = 0;
  ComputeStream compute_;
  DeviceEvent gate_open_;
  DeviceArray<std::uint16_t> x_;
  DeviceArray<std::uint16_t> w_;
  DeviceArray<float> y_;
  DeviceArray<std::int64_t> topk_idx_;
  DeviceArray<Stamps> stamps_;
  switchyard::Buffer buffer_;
};

}  // namespace example
