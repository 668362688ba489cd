#include "transport/libfabric/providers.hpp"

#include <fmt/format.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "base/check.hpp"
#include "base/nearest.hpp"
#include "transport/libfabric/ip.hpp"
#include "transport/libfabric/policy.hpp"

namespace switchyard::transport::libfabric {

namespace {

// What we can live with: all that a provider may demand of the memory and of the contexts of operations, but for
// keys of more than 64 bits.
void set_modes(fi_info& hints) {
  hints.mode = FI_CONTEXT | FI_CONTEXT2;
  hints.domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
  // Each endpoint has a domain of its own, and is used by one thread at a time.
  hints.domain_attr->threading = FI_THREAD_DOMAIN;
  hints.domain_attr->control_progress = FI_PROGRESS_MANUAL;
  hints.domain_attr->data_progress = FI_PROGRESS_MANUAL;
  hints.ep_attr->type = FI_EP_RDM;
}

// Writes whose immediates the provider delivers.
void ask_for_immediates(fi_info& hints) {
  hints.caps = FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
  hints.domain_attr->cq_data_size = sizeof(std::uint32_t);
}

// The same of providers that take a posted receive for each immediate: only who asks for messages may post one.
void ask_for_immediates_that_take_receives(fi_info& hints) {
  ask_for_immediates(hints);
  hints.mode |= FI_RX_CQ_DATA;
  hints.caps |= FI_MSG | FI_SEND | FI_RECV;
}

// Writes that say when they were delivered, and messages that wait for a receiver who has no room. (Writes have
// their room in the queue of completions, which is large enough; providers that are next to the hardware protect no
// more.)
void ask_for_messages(fi_info& hints) {
  hints.mode |= FI_RX_CQ_DATA;
  hints.caps = FI_RMA | FI_WRITE | FI_REMOTE_WRITE | FI_MSG | FI_SEND | FI_RECV;
  hints.tx_attr->op_flags = FI_DELIVERY_COMPLETE;
  hints.domain_attr->resource_mgmt = FI_RM_ENABLED;
}

std::string text_of(char const* text) {
  return text != nullptr ? text : "";
}

Candidate describe(fi_info const& info, bool counts_remotely) {
  Nic nic;
  nic.provider = text_of(info.fabric_attr->prov_name);
  nic.name = text_of(info.domain_attr->name);
  nic.address = ip_text(info.addr_format, info.src_addr, info.src_addrlen);
  if (info.nic != nullptr && info.nic->link_attr != nullptr) {
    nic.gigabits = static_cast<double>(info.nic->link_attr->speed) / 1e9;
  }
  nic.counts_remotely = counts_remotely;
  nic.of_a_fabric = preference_of(nic.provider).rails;
  return {&info, nic};
}

// fi_getinfo lists the same thing several times, in variants that make no difference here.
void add_candidates(Offers& offers, bool counts_remotely) {
  std::set<std::tuple<std::string, std::string, std::string, std::string>> seen;
  for (Candidate const& known : offers.candidates) {
    seen.emplace(known.nic.provider, text_of(known.info->fabric_attr->name), known.nic.name, known.nic.address);
  }
  for (fi_info const* info = offers.lists.back().get(); info != nullptr; info = info->next) {
    Candidate candidate = describe(*info, counts_remotely);
    Nic const& nic = candidate.nic;
    if (seen.emplace(nic.provider, text_of(info->fabric_attr->name), nic.name, nic.address).second) {
      offers.candidates.push_back(std::move(candidate));
    }
  }
}

bool is_named(Nic const& nic, std::string const& name) {
  return name == nic.name || (!nic.address.empty() && name == nic.address);
}

// Why a NIC is not used whichever others there are.
std::string why_unfit(Nic const& nic, Wish const& wish) {
  if (!wish.provider.empty() && !answers_to(nic.provider, wish.provider)) {
    return fmt::format("provider {} was asked for", wish.provider);
  }
  if (!preference_of(nic.provider).why_never.empty()) return std::string(preference_of(nic.provider).why_never);
  if (!wish.nics.empty()) {
    bool const named = std::ranges::any_of(wish.nics, [&](auto const& name) { return is_named(nic, name); });
    return named ? "" : "other NICs were asked for";
  }
  if (!wish.address.empty()) return "";
  if (is_loopback(nic.address)) return "loopback reaches this node only";
  if (is_link_local(nic.address)) return "a link-local address, which other nodes may read differently";
  return "";
}

// Why a NIC is not used beside those that are.
std::string why_beaten(Nic const& nic, std::vector<Nic const*> const& used, Wish const& wish) {
  if (used.empty()) return "";
  Nic const& best = *used.front();
  if (nic.provider != best.provider) return fmt::format("provider {} is preferred", best.provider);
  for (Nic const* one : used) {
    if (one->name == nic.name)
      return fmt::format("this NIC is used already{}{}", one->address.empty() ? "" : ", by ", one->address);
  }
  if (!preference_of(nic.provider).rails && wish.nics.empty()) {
    return fmt::format("{} is used; SWITCHYARD_FABRIC_NICS can name several", best.name);
  }
  return "";
}

void judge(Offers& offers, Wish const& wish) {
  std::vector<Nic const*> used;
  for (Candidate& candidate : offers.candidates) {
    Nic& nic = candidate.nic;
    nic.why_not = why_unfit(nic, wish);
    if (nic.why_not.empty()) nic.why_not = why_beaten(nic, used, wish);
    if (nic.why_not.empty()) used.push_back(&nic);
  }
}

std::string alternatives(std::set<std::string> const& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_names(Offers const& offers, Wish const& wish) {
  std::set<std::string> providers;
  std::set<std::string> nics;
  for (Candidate const& candidate : offers.candidates) {
    providers.insert(candidate.nic.provider);
    nics.insert(candidate.nic.name);
  }
  bool const known =
      std::ranges::any_of(providers, [&](auto const& one) { return answers_to(one, wish.provider); });
  require(wish.provider.empty() || known, "SWITCHYARD_FABRIC_PROVIDER: expected one of {}, seen '{}'",
          alternatives(providers), wish.provider);
  for (std::string const& name : wish.nics) {
    bool const found =
        std::ranges::any_of(offers.candidates, [&](Candidate const& one) { return is_named(one.nic, name); });
    require(found, "SWITCHYARD_FABRIC_NICS: expected some of {}, or their addresses, seen '{}'", alternatives(nics),
            name);
  }
}

}  // namespace

std::vector<Candidate const*> Offers::chosen() const {
  std::vector<Candidate const*> used;
  for (Candidate const& candidate : candidates) {
    if (candidate.nic.chosen()) used.push_back(&candidate);
  }
  return used;
}

Offers find_offers(Library const& library, Wish const& wish) {
  Offers offers;
  auto const ask = [&](auto const& what, bool counts_remotely) {
    InfoPtr const hints = library.info();
    set_modes(*hints);
    what(*hints);
    offers.lists.push_back(library.ask(*hints, wish.address));
    add_candidates(offers, counts_remotely);
  };
  if (wish.counting != Counting::messages) {
    ask(ask_for_immediates, true);
    ask(ask_for_immediates_that_take_receives, true);
  }
  if (wish.counting != Counting::remote) ask(ask_for_messages, false);
  // Stable: providers list what is fastest first. Of one NIC's addresses, IPv4 is what most networks route.
  std::ranges::stable_sort(offers.candidates, {}, [](Candidate const& one) {
    bool const is_ipv6 = one.nic.address.find(':') != std::string::npos;
    return std::tuple(order_of(one.nic.provider), !one.nic.counts_remotely, is_ipv6);
  });
  check_names(offers, wish);
  judge(offers, wish);
  require(wish.address.empty() || !offers.chosen().empty(),
          "address: expected one of this node that a provider can listen at, seen '{}'", wish.address);
  return offers;
}

}  // namespace switchyard::transport::libfabric
