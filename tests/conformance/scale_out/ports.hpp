// Ports of a job of several nodes, whose ranks are threads of this process.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "job/job.hpp"
#include "scale_out/port.hpp"
#include "support/check.hpp"
#include "support/scale.hpp"

namespace switchyard::test {

// What SWITCHYARD_TRANSPORT and SWITCHYARD_FAULTS say.
struct Way {
  std::string transport = "loopback";
  int faults = 0;
};
void PrintTo(Way const& way, std::ostream* out);
// Of all ranks of this process, which read them when they make a port. Why it cannot be had here: a text.
[[nodiscard]] std::string choose(Way const& way);

// By rank, the name of its node.
using NodeNames = std::vector<std::string>;

using JobBody = std::function<void(std::shared_ptr<Job> const&)>;
using PortBody = std::function<void(scale_out::Port&, Job&)>;

// Runs the body as every rank; a failure of any fails the test, which names it.
void run_jobs(NodeNames const& nodes, JobBody const& body,
              std::chrono::milliseconds timeout = std::chrono::seconds{30});
void run_ports(NodeNames const& nodes, scale_out::PortSizes const& sizes, PortBody const& body);

// Polls until it holds; throws CheckFailed when it never does.
void poll_until(scale_out::Port& port, std::function<bool()> const& holds, std::string const& what);

// Letters to and from all neighbours, without a chunk: the least that a call can be.
void exchange_letters(scale_out::Port& port, std::uint64_t epoch);

}  // namespace switchyard::test
