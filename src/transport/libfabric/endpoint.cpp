#include "transport/libfabric/endpoint.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard::transport::libfabric {

namespace {

Capabilities capabilities_of(Nic const& nic, fi_info const& info, Limits const& limits) {
  Capabilities can;
  can.provider = nic.provider;
  can.nic = nic.name;
  can.max_write_bytes = info.ep_attr->max_msg_size;
  can.max_writes = limits.writes;
  can.counts_remotely = nic.counts_remotely;
  can.region_bytes_limit = limits.piece_bytes;
  return can;
}

Fid<fid_mr> none() {
  return {nullptr, CloseFid{-1}};
}

Limits limits_of(Candidate const& candidate, EndpointOptions const& options) {
  fi_info const& info = *candidate.info;
  bool const receives = !candidate.nic.counts_remotely || ((info.mode | info.rx_attr->mode) & FI_RX_CQ_DATA) != 0;
  Limits limits;
  limits.writes = std::min(options.max_writes, info.tx_attr->size);
  limits.arrivals = options.max_arrivals;
  limits.receives = receives ? std::min(options.max_arrivals, info.rx_attr->size) : 0;
  limits.piece_bytes = options.piece_bytes;
  return limits;
}

}  // namespace

FabricEndpoint::FabricEndpoint(Library const& library, Candidate const& candidate, Limits const& limits)
    : context_(library, *candidate.info, limits.writes + limits.arrivals + limits.receives),
      limits_(limits),
      capabilities_(capabilities_of(candidate.nic, context_.info(), limits)),
      own_(context_.address()),
      operations_(limits.writes, limits.receives),
      memory_{none(), none()} {
  own_.counts_remotely = candidate.nic.counts_remotely;
  if (limits.receives == 0) return;
  if (context_.has_mode(FI_MR_LOCAL)) {
    auto const bytes_of = [](auto const& elements) { return elements.size() * sizeof elements[0]; };
    auto& sources = operations_.operations();
    auto& places = operations_.receives();
    memory_.operations = context_.register_memory(sources.data(), bytes_of(sources), FI_SEND);
    memory_.receives = context_.register_memory(places.data(), bytes_of(places), FI_RECV);
  }
  for (Receive& receive : operations_.receives()) post_receive(receive);
}

FabricEndpoint::~FabricEndpoint() {
  if (!context_.has_mode(FI_MR_ENDPOINT)) context_.close_endpoint();
}

Peer FabricEndpoint::add_peer(Opaque const& address, std::string name) {
  Address const peer = unpack_address(address, own_);
  PeerState state;
  state.entry = context_.add(peer);
  state.name = std::move(name);
  return peers_.add(std::move(state));
}

PeerRegion FabricEndpoint::add_region(Peer peer, Opaque const& key) {
  return peers_.add_region(peer, unpack_key(key));
}

std::unique_ptr<Region> FabricEndpoint::register_memory(std::span<std::byte> memory) {
  return std::make_unique<FabricRegion>(context_, memory, limits_.piece_bytes);
}

std::string FabricEndpoint::reason(Peer peer) const {
  return peer == Peer{-1} ? reason_without_a_peer_ : peers_.of(peer).reason;
}

std::unique_ptr<Endpoint> open_endpoint(EndpointOptions const& options) {
  require(options.max_writes > 0, "max_writes: expected at least 1, seen 0");
  require(options.max_arrivals > 0, "max_arrivals: expected at least 1, seen 0");
  require(options.piece_bytes > 0, "piece_bytes: expected at least 1, seen 0");
  Offers const offers = find_offers(library(), options.wish);
  auto const chosen = offers.chosen();
  if (chosen.empty()) {
    throw Unsupported(
        "libfabric: no NIC to reach other nodes by; `switchyard info` lists those there are, and why none "
        "is used");
  }
  Candidate const& candidate = *chosen[options.nic % chosen.size()];
  return std::make_unique<FabricEndpoint>(library(), candidate, limits_of(candidate, options));
}

}  // namespace switchyard::transport::libfabric
