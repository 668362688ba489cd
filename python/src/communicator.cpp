#include "communicator.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <span>
#include <vector>

#include "waiting.hpp"

namespace switchyard::python {

namespace nb = nanobind;

namespace {

constexpr char const* name = "Communicator";

OwnedCommunicator from_environment() {
  return {name, aside([] { return Communicator::from_environment(); })};
}

// address: host:port. serve: rank 0 serves the store itself. timeout: 0 is the default; the library refuses
// negative ones.
OwnedCommunicator connect(int rank, int size, std::string const& address, std::string const& token, bool serve,
                          double timeout, std::string const& node) {
  CommunicatorOptions const options{.rank = rank,
                                    .size = size,
                                    .address = address,
                                    .token = token,
                                    .serve = serve,
                                    .timeout = milliseconds("timeout", timeout),
                                    .node = node};
  return {name, aside([options] { return Communicator::connect(options); })};
}

OwnedCommunicator join(std::shared_ptr<Store> const& store, int rank, int size, double timeout,
                       std::string const& node) {
  return {name, aside([store, rank, size, node, limit = milliseconds("timeout", timeout)] {
            return Communicator::join(store, rank, size, limit, node);
          })};
}

void barrier(OwnedCommunicator const& self) {
  aside([communicator = self.get()] { communicator->barrier(); });
}

nb::list all_gather(OwnedCommunicator const& self, nb::bytes const& mine) {
  auto const* begin = reinterpret_cast<std::byte const*>(mine.c_str());
  std::vector<std::byte> const copy(begin, begin + mine.size());
  auto const all = aside([communicator = self.get(), copy] { return communicator->all_gather(copy); });
  nb::list result;
  for (auto const& each : all) result.append(nb::bytes(each.data(), each.size()));
  return result;
}

}  // namespace

void bind_communicator(nb::module_& module) {
  // Python passes the pointer on; the library alone knows the type behind it.
  struct PyStore {
    std::shared_ptr<Store> store = Communicator::in_process_store();
  };
  nb::class_<PyStore>(module, "Store", "The meeting point of ranks that are threads of this process.")
      .def(nb::init<>());
  nb::class_<StoreServer>(module, "StoreServer", "Serves the meeting point of a job on a free port.")
      .def(nb::init<std::string const&, std::string const&>(), nb::arg("token"), nb::arg("host"))
      .def_prop_ro("address", &StoreServer::address, "host:port");
  module.def(
      "rendezvous_timeout",
      [](double timeout) { return seconds(rendezvous_timeout(milliseconds("timeout", timeout))); },
      nb::arg("timeout"),
      "Returns the seconds that ranks have to find one another; timeout: the caller's, 0: the default.");
  nb::class_<OwnedCommunicator>(module, "Communicator")
      .def_static("from_environment", &from_environment)
      .def_static("connect", &connect, nb::arg("rank"), nb::arg("size"), nb::arg("address"), nb::arg("token"),
                  nb::arg("serve"), nb::arg("timeout"), nb::arg("node"))
      .def_static(
          "join",
          [](PyStore const& store, int rank, int size, double timeout, std::string const& node) {
            return join(store.store, rank, size, timeout, node);
          },
          nb::arg("store"), nb::arg("rank"), nb::arg("size"), nb::arg("timeout"), nb::arg("node"))
      .def_prop_ro("rank", [](OwnedCommunicator const& self) { return self.get()->rank(); })
      .def_prop_ro("size", [](OwnedCommunicator const& self) { return self.get()->size(); })
      .def_prop_ro("node_by_rank", [](OwnedCommunicator const& self) { return self.get()->node_by_rank(); })
      .def("barrier", &barrier)
      .def("all_gather", &all_gather, nb::arg("mine"))
      .def("destroy", &OwnedCommunicator::destroy);
}

}  // namespace switchyard::python
