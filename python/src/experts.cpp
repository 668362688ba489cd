#include "experts.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "switchyard/experts.hpp"
#include "tensors/arrays.hpp"

namespace switchyard::python {

namespace nb = nanobind;

namespace {

template <typename T>
using Array = nb::ndarray<T const, nb::numpy, nb::c_contig, nb::device::cpu>;

template <typename T>
std::span<T const> span_of(std::optional<Array<T>> const& array) {
  return array ? std::span<T const>(array->data(), array->size()) : std::span<T const>();
}

// The numbers of a call, as Python has checked their shapes.
struct Numbers {
  std::optional<Array<double>> load;
  std::optional<Array<std::int64_t>> old;
  std::optional<Array<double>> traffic;
};

nb::tuple plan(ExpertArgs args, Numbers const& numbers) {
  args.load = span_of(numbers.load);
  args.old = span_of(numbers.old);
  args.traffic = span_of(numbers.traffic);
  ExpertPlan made = [&] {
    nb::gil_scoped_release const released;
    return plan_experts(args);
  }();
  auto const layers = static_cast<std::size_t>(args.layers);
  auto const experts = static_cast<std::size_t>(args.experts);
  auto const width = static_cast<std::size_t>(made.most_replicas);
  return nb::make_tuple(
      array_of(std::move(made.physical_to_logical), {layers, static_cast<std::size_t>(args.replicas)}),
      array_of(std::move(made.logical_to_physical), {layers, experts, width}),
      array_of(std::move(made.replica_count), {layers, experts}), array_of(std::move(made.imbalance), {layers}),
      array_of(std::move(made.moved), {layers}),
      numbers.traffic ? nb::cast(array_of(std::move(made.crossing), {layers})) : nb::none());
}

}  // namespace

void bind_experts(nb::module_& module) {
  nb::class_<ExpertArgs>(module, "ExpertArgs")
      .def(nb::init<>())
      .def_rw("layers", &ExpertArgs::layers)
      .def_rw("experts", &ExpertArgs::experts)
      .def_rw("replicas", &ExpertArgs::replicas)
      .def_rw("groups", &ExpertArgs::groups)
      .def_rw("nodes", &ExpertArgs::nodes)
      .def_rw("gpus", &ExpertArgs::gpus)
      .def_rw("slack", &ExpertArgs::slack)
      .def_rw("move_cost", &ExpertArgs::move_cost);
  module.def(
      "plan_experts",
      [](ExpertArgs const& args, Array<double> load, std::optional<Array<std::int64_t>> old,
         std::optional<Array<double>> traffic) {
        return plan(args, {std::move(load), std::move(old), std::move(traffic)});
      },
      nb::arg("args"), nb::arg("load"), nb::arg("old").none(), nb::arg("traffic").none(),
      "What the fields of switchyard.ExpertPlan are, in their order.");
}

}  // namespace switchyard::python
