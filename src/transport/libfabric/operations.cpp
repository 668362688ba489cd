#include "transport/libfabric/operations.hpp"

namespace switchyard::transport::libfabric {

namespace {

template <typename T>
T* element_at(std::vector<T>& elements, void const* address) noexcept {
  if (elements.empty()) return nullptr;
  auto const first = reinterpret_cast<std::uintptr_t>(elements.data());
  auto const at = reinterpret_cast<std::uintptr_t>(address);
  if (at < first || (at - first) % sizeof(T) != 0) return nullptr;
  std::size_t const index = (at - first) / sizeof(T);
  return index < elements.size() ? &elements[index] : nullptr;
}

}  // namespace

Operation* Operations::take() {
  if (free_.empty()) return nullptr;
  Operation* const operation = free_.back();
  free_.pop_back();
  operation->taken = true;
  return operation;
}

void Operations::give_back(Operation& operation) {
  operation.taken = false;
  free_.push_back(&operation);
}

Operation* Operations::operation_of(void const* context) noexcept {
  Operation* const operation = element_at(operations_, context);
  return operation != nullptr && operation->taken ? operation : nullptr;
}

Receive* Operations::receive_of(void const* context) noexcept {
  return element_at(receives_, context);
}

}  // namespace switchyard::transport::libfabric
