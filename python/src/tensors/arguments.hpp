// The arguments of a call as a table: one row for each object that Python passes. The signature that Python sees,
// the arguments of the engine and what a queued call keeps alive all follow the table.
#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensors/exchange.hpp"
#include "tensors/inputs.hpp"

namespace switchyard::python {

// A row of the table: reads the object that Python passes under `name` into the arguments of the engine.
template <typename Args>
struct Argument {
  char const* name;
  void (*read)(char const* name, nb::handle object, Args& args, Exports& exports);
};

template <typename View, typename Args>
Args class_of_member(View Args::*);
template <typename View, typename Args>
View type_of_member(View Args::*);

// A row for a tensor. `Member` is a ConstTensorView of the engine's arguments if the call reads the tensor, and a
// TensorView if the call writes to it.
template <auto Member>
constexpr auto tensor_argument(char const* name) {
  using Args = decltype(class_of_member(Member));
  constexpr bool written = std::is_same_v<decltype(type_of_member(Member)), TensorView>;
  return Argument<Args>{name, [](char const* called, nb::handle object, Args& args, Exports& exports) {
                          if constexpr (written) {
                            args.*Member = output(called, object, exports);
                          } else {
                            args.*Member = input(called, object, exports);
                          }
                        }};
}

// The objects that Python passes to a call of a family. A family is a struct with:
//   Args, Options: the arguments of the engine, and the options of Python's call
//   table: a constexpr array of Argument<Args>, the tensor x first
//   set(args, options): copies what only this family's options have
template <typename Family>
class Inputs {
 public:
  using Args = typename Family::Args;
  using Options = typename Family::Options;
  static constexpr std::size_t count = std::tuple_size_v<decltype(Family::table)>;

  explicit Inputs(std::array<nb::handle, count> objects) : objects_(objects) {}

  [[nodiscard]] nb::handle x() const { return objects_.front(); }
  [[nodiscard]] nb::handle object(std::size_t row) const { return objects_[row]; }

  // The views are valid as long as the objects live, and this.
  [[nodiscard]] Args read(Options const& options) {
    Args args;
    for (std::size_t i = 0; i < count; ++i)
      Family::table[i].read(Family::table[i].name, objects_[i], args, exports_);
    args.num_workers = options.num_workers;
    args.num_sms = options.num_sms;
    args.cuda_stream = stream(options);
    Family::set(args, options);
    return args;
  }

  // The stream of the call: that of the options, or the one that is current in the framework of x. Does not throw.
  [[nodiscard]] std::uintptr_t stream(Options const& options) const {
    return options.current_stream ? current_cuda_stream(x()).value_or(0) : options.cuda_stream;
  }

  // What a call that goes on after it has returned keeps alive.
  [[nodiscard]] std::vector<nb::object> kept() const {
    std::vector<nb::object> all;
    all.reserve(count + exports_.size());
    for (nb::handle const each : objects_)
      if (!each.is_none()) all.push_back(nb::borrow(each));
    all.insert(all.end(), exports_.begin(), exports_.end());
    return all;
  }

 private:
  std::array<nb::handle, count> objects_;
  Exports exports_;
};

template <std::size_t>
using Object = nb::handle;

// Defines a method of a buffer: Call(self, inputs, options).
template <typename Family, typename Self, auto Call, typename Class>
void define_call(nb::class_<Class>& buffer, char const* name) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    buffer.def(
        name,
        [](Self self, Object<I>... objects, typename Family::Options const& options) {
          Inputs<Family> inputs({objects...});
          return Call(self, inputs, options);
        },
        nb::arg(Family::table[I].name).none()..., nb::arg("options"));
  }
  (std::make_index_sequence<Inputs<Family>::count>{});
}

}  // namespace switchyard::python
