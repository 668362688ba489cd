// The back end over libfabric, as the rest of the house sees it: without libfabric's own headers, so that a build
// without those has this interface too, and says what is missing to whoever asks for more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace switchyard::transport::libfabric {

// How a peer learns of a write. `automatic`: the provider delivers immediates if it can; if not, a message follows
// each write once the provider says that the write was delivered.
enum class Counting : std::uint8_t { automatic, remote, messages };

// Which NICs to take. Fields that are empty leave the choice to the policy (policy.hpp).
struct Wish {
  std::string provider;           // as libfabric calls it
  std::vector<std::string> nics;  // names of NICs, or their addresses
  std::string address;            // an address or a name of this node that the endpoint listens at
  Counting counting = Counting::automatic;
};

// What SWITCHYARD_FABRIC_PROVIDER and SWITCHYARD_FABRIC_NICS say.
Wish wish_of_environment();

// One way to reach the network: a NIC as a provider offers it, at one of its addresses.
struct Nic {
  std::string provider;
  std::string name;
  std::string address;  // empty where the provider's addresses are not those of IP
  double gigabits = 0;  // of the link, a second; 0: the provider does not say
  bool counts_remotely = true;
  bool of_a_fabric = true;  // all NICs reach all nodes; otherwise each may be a network of its own
  std::string why_not;      // empty: it would be used

  [[nodiscard]] bool chosen() const noexcept { return why_not.empty(); }
};

struct Report {
  std::string library;  // version and file; empty when there is none
  std::string why_none;
  std::vector<Nic> nics;  // best first
};

// Never throws for want of a library or a NIC: the report says so. Throws InvalidArgument when a wish names what is
// not there.
Report report(Wish const& wish);

struct EndpointOptions {
  Wish wish;
  std::size_t nic = 0;  // which of those chosen, modulo their number: a rank takes its local rank
  // Limits of what may be outstanding, which the completion queue is made for, since not every provider protects
  // it:
  std::size_t max_writes = 256;     // of this endpoint, or fewer where the provider has room for fewer
  std::size_t max_arrivals = 4096;  // of all peers together, not polled yet
  // Providers and their NICs have limits of a registration; nobody is known to refuse this.
  std::size_t piece_bytes = std::size_t{1} << 30U;
};

// Endpoints that exchange writes add one another before the first: EFA takes nothing from strangers. Memory is best
// shared (a memfd) or kept from children (MADV_DONTFORK), since fork() may move pages that a NIC writes to.
//
// Throws Unsupported when there is no library or no NIC to use, InvalidArgument for a wish that cannot be met, and
// SystemError when the provider refuses.
std::unique_ptr<Endpoint> open_endpoint(EndpointOptions const& options);

}  // namespace switchyard::transport::libfabric
