// The writes that are under way, and the messages that are waited for: places in memory that stays where it is,
// because the provider keeps their addresses meanwhile, and some providers write into them.
#pragma once

#include <rdma/fabric.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "transport/libfabric/region.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport::libfabric {

// What follows a write where the provider delivers no immediates.
struct Message {
  static constexpr std::uint32_t right_mark = 0x314d5953;  // "SYM1"
  std::uint32_t mark = right_mark;
  std::uint32_t immediate = 0;
};

// A write is one step where it can be: a write with its immediate. Where it lies in several pieces of a region, or
// the provider delivers no immediates, each step waits until the one before was delivered.
enum class Step : std::uint8_t { part, last_part, message };

struct Operation {
  fi_context2 room{};  // the provider's while a step is under way; first, as completions carry its address
  Message message;
  Write write;
  FabricRegion const* from = nullptr;  // none: no bytes, only the immediate
  std::size_t done = 0;                // bytes that were delivered
  std::size_t step_bytes = 0;          // of the step that is under way
  Step step = Step::part;
  bool taken = false;
};

struct Receive {
  fi_context2 room{};
  Message message;
};

class Operations {
 public:
  Operations(std::size_t operations, std::size_t receives) : operations_(operations), receives_(receives) {
    for (Operation& operation : operations_) free_.push_back(&operation);
  }

  // nullptr when all are taken.
  Operation* take();
  void give_back(Operation& operation);
  // What a completion belongs to; nullptr when it is none of these, or is not under way.
  Operation* operation_of(void const* context) noexcept;
  Receive* receive_of(void const* context) noexcept;

  [[nodiscard]] std::vector<Operation>& operations() noexcept { return operations_; }
  [[nodiscard]] std::vector<Receive>& receives() noexcept { return receives_; }

 private:
  std::vector<Operation> operations_;
  std::vector<Receive> receives_;
  std::vector<Operation*> free_;
};

}  // namespace switchyard::transport::libfabric
