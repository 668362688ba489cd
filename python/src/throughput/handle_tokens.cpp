#include "throughput/handle_tokens.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "errors.hpp"
#include "throughput/calls.hpp"

namespace switchyard::python {

namespace nb = nanobind;

namespace {

// The handles whose tokens live, by number. Tokens are freed by any thread.
class Registry {
 public:
  static Registry& get() {
    static auto* const registry = new Registry;  // never freed: tokens may outlive static objects
    return *registry;
  }
  std::int64_t add(DispatchHandle const& handle) {
    std::lock_guard const lock(mutex_);
    handles_.emplace(++latest_, handle);
    return latest_;
  }
  void remove(std::int64_t number) {
    std::lock_guard const lock(mutex_);
    handles_.erase(number);
  }
  std::optional<DispatchHandle> find(std::int64_t number) {
    std::lock_guard const lock(mutex_);
    auto const found = handles_.find(number);
    return found == handles_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::mutex mutex_;
  std::map<std::int64_t, DispatchHandle> handles_;
  std::int64_t latest_ = 0;
};

// The memory of a token: the number. When it is freed, the handle goes.
struct Token {
  explicit Token(DispatchHandle const& handle) : number(Registry::get().add(handle)) {}
  ~Token() { Registry::get().remove(number); }
  Token(Token const&) = delete;
  Token& operator=(Token const&) = delete;
  std::int64_t number;
};

nb::object token_of(DispatchHandle const& handle, nb::handle like) {
  auto const token = std::make_shared<Token>(handle);
  return Exporter(like)(Tensor(TensorView(&token->number, DType::i64, {1}), token));
}

DispatchHandle handle_of(std::int64_t number) {
  auto found = Registry::get().find(number);
  if (!found)
    throw Unusable(
        "handle: the token of a dispatch is gone; keep the tensor that the dispatch returned, not a copy");
  return *std::move(found);
}

}  // namespace

void bind_handle_tokens(nb::module_& module) {
  module.def("handle_token", &token_of, nb::arg("handle"), nb::arg("like"));
  module.def("handle_of_token", &handle_of, nb::arg("number"));
}

}  // namespace switchyard::python
