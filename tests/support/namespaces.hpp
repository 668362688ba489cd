// Nodes that are network namespaces of this machine, with a router between them. It takes root, and `ip`.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace switchyard::test {

// Of the addresses of NICs, which have none of the other one.
enum class Family : std::uint8_t { ipv4, ipv6 };

class Namespaces {
 public:
  // Each node reaches the others over each of its NICs: over eth0 by default, and over eth1 what lies behind eth1.
  explicit Namespaces(int nodes, int nics = 1, Family family = Family::ipv4) : nodes_(nodes), family_(family) {
    static int count = 0;
    // Names of interfaces have 15 characters at most.
    prefix_ = "sy" + std::to_string(getpid() % 1000000) + "-" + std::to_string(count++);
    try {
      must("ip netns add " + prefix_);
      set(prefix_, family == Family::ipv4 ? "ipv4/ip_forward" : "ipv6/conf/all/forwarding", 1);
      trust_addresses(prefix_);
      for (int node = 0; node < nodes; ++node) {
        must("ip netns add " + name(node));
        trust_addresses(name(node));
        must("ip -n " + name(node) + " link set lo up");
        for (int nic = 0; nic < nics; ++nic) add(node, nic);
        must(ip(name(node)) + "route add default via " + router(node, 0));
      }
      for (int node = 0; node < nodes; ++node)
        for (int nic = 0; nic < nics; ++nic) await_link(node, nic);
    } catch (...) {
      remove();
      throw;
    }
  }
  Namespaces(Namespaces const&) = delete;
  Namespaces& operator=(Namespaces const&) = delete;
  ~Namespaces() { remove(); }

  // Why there can be none here; empty when there can.
  static std::string why_not() {
    if (geteuid() != 0) return "network namespaces take root";
    std::string const probe = "sy" + std::to_string(getpid() % 1000000) + "-probe";
    bool const works = run("ip netns add " + probe);
    if (works) run("ip netns del " + probe);
    return works ? "" : "`ip netns add` does not work here (it takes iproute2 and CAP_SYS_ADMIN)";
  }

  static std::string address(int node, int nic = 0, Family family = Family::ipv4) {
    return subnet(node, nic, family) + "2";
  }

  // Moves the calling thread, and whatever it forks, to a node.
  void enter(int node) const {
    int const fd = open(("/var/run/netns/" + name(node)).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) throw std::runtime_error("cannot enter namespace " + name(node));
    close(fd);
  }

  // Why no packets can be dropped here; empty when they can.
  static std::string why_no_loss() {
    if (!run("nft --version"))
      return "packets are dropped by nftables, which is not installed (apt package nftables)";
    Namespaces const probe(0);
    try {
      probe.drop(50);
    } catch (std::runtime_error const&) {
      return "this kernel does not drop packets at random (nftables with `numgen`)";
    }
    return "";
  }

  // From here on the router loses so many percent of the packets between nodes, each way.
  void drop(int percent) const { add_rule("numgen random mod 100 '<' " + std::to_string(percent) + " drop"); }

  // From here on no new connection is made between nodes: what a firewall does, which answers or does not.
  void close_ports(bool answers) const {
    add_rule(std::string("tcp flags '&' '(syn|ack)' == syn ") + (answers ? "reject with tcp reset" : "drop"));
  }

  // Bytes that a node has sent through a NIC so far.
  [[nodiscard]] std::uint64_t sent(int node, int nic) const {
    std::string const counter = "/sys/class/net/" + port(node, nic) + "/statistics/rx_bytes";
    std::unique_ptr<FILE, int (*)(FILE*)> const pipe(
        popen(("ip netns exec " + prefix_ + " cat " + counter).c_str(), "re"), pclose);
    unsigned long long bytes = 0;
    if (!pipe || std::fscanf(pipe.get(), "%llu", &bytes) != 1) throw std::runtime_error("cannot read " + counter);
    return bytes;
  }

  // What is under way is lost, and comes again when the link is up. Returns when it is.
  void set_link(int node, bool up) const {
    must("ip -n " + prefix_ + " link set " + port(node, 0) + (up ? " up" : " down"));
    if (up) await_link(node, 0);
  }

 private:
  [[nodiscard]] std::string name(int node) const { return prefix_ + "n" + std::to_string(node); }

  // As a prefix of the addresses in it.
  static std::string network(int nic, Family family) {
    std::string const number = std::to_string(199 + nic);
    return family == Family::ipv4 ? "10." + number + "." : "fd00:" + number + ":";
  }
  static std::string subnet(int node, int nic, Family family) {
    return network(nic, family) + std::to_string(node) + (family == Family::ipv4 ? "." : "::");
  }
  [[nodiscard]] std::string router(int node, int nic) const { return subnet(node, nic, family_) + "1"; }
  [[nodiscard]] std::string whole_network(int nic) const {
    return network(nic, family_) + (family_ == Family::ipv4 ? "0.0/16" : ":/32");
  }
  [[nodiscard]] std::string in_subnet(std::string const& address) const {
    return address + (family_ == Family::ipv4 ? "/24" : "/64 nodad");
  }
  static void set(std::string const& space, std::string const& variable, int value) {
    must("ip netns exec " + space + " sh -c 'echo " + std::to_string(value) + " >/proc/sys/net/" + variable + "'");
  }
  // Otherwise the kernel asks for a second whether somebody else has an IPv6 address, one of the link among them,
  // before it uses it.
  void trust_addresses(std::string const& space) const {
    if (family_ == Family::ipv6) set(space, "ipv6/conf/default/accept_dad", 0);
  }
  [[nodiscard]] std::string ip(std::string const& space) const {
    return std::string(family_ == Family::ipv4 ? "ip" : "ip -6") + " -n " + space + " ";
  }
  static std::string port(int node, int nic) {
    return "v" + std::to_string(node) + (nic == 0 ? "" : "-" + std::to_string(nic));
  }

  void remove() const {
    for (int node = 0; node < nodes_; ++node) run("ip netns del " + name(node));
    run("ip netns del " + prefix_);
  }

  static bool run(std::string const& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }
  static void must(std::string const& command) {
    if (!run(command)) throw std::runtime_error("failed: " + command);
  }

  // One command at a time: kernels without concatenations refuse several at once.
  void nft(std::string_view command) const { must("ip netns exec " + prefix_ + " nft " + std::string(command)); }

  // The only one, for packets between nodes.
  void add_rule(std::string const& rule) const {
    nft("add table ip between");
    nft("flush table ip between");
    nft("add chain ip between forward '{ type filter hook forward priority 0 ; }'");
    nft("add rule ip between forward " + rule);
  }

  void add(int node, int nic) const {
    std::string const inside = ip(name(node));
    std::string const outside = ip(prefix_);
    std::string const outer = port(node, nic);
    std::string const inner = "eth" + std::to_string(nic);
    must(outside + "link add " + outer + " type veth peer name " + inner + " netns " + name(node));
    must(outside + "addr add " + in_subnet(router(node, nic)) + " dev " + outer);
    must(outside + "link set " + outer + " up");
    must(inside + "addr add " + in_subnet(address(node, nic, family_)) + " dev " + inner);
    must(inside + "link set " + inner + " up");
    if (nic > 0) must(inside + "route add " + whole_network(nic) + " via " + router(node, nic) + " dev " + inner);
  }

  // The kernel takes up to a second to see that both ends of a link are up, and longer while many namespaces come
  // and go; until then libfabric passes over it, and nothing gets through.
  void await_link(int node, int nic) const {
    auto const is_up = [](std::string const& space, std::string const& end) {
      return run("ip -n " + space + " -o link show " + end + " | grep -q 'state UP'");
    };
    auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!is_up(name(node), "eth" + std::to_string(nic)) || !is_up(prefix_, port(node, nic))) {
      if (std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("the link of NIC " + std::to_string(nic) + " of node " + std::to_string(node) +
                                 " has not come up in a minute");
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
  }

  int nodes_;
  Family family_;
  std::string prefix_;
};

}  // namespace switchyard::test
