// Nodes that are network namespaces of this machine, with a router between them. It takes root, and `ip`.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace switchyard::test {

class Namespaces {
 public:
  explicit Namespaces(int nodes) : nodes_(nodes) {
    static int count = 0;
    // Names of interfaces have 15 characters at most.
    prefix_ = "sy" + std::to_string(getpid() % 1000000) + "-" + std::to_string(count++);
    try {
      must("ip netns add " + prefix_);
      must("ip netns exec " + prefix_ + " sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'");
      for (int node = 0; node < nodes; ++node) add(node);
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

  static std::string address(int node) { return subnet(node) + ".2"; }

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
  void drop(int percent) const {
    nft("add table ip loss");
    nft("flush table ip loss");
    nft("add chain ip loss forward '{ type filter hook forward priority 0 ; }'");
    nft("add rule ip loss forward numgen random mod 100 '<' " + std::to_string(percent) + " drop");
  }

  // What is under way is lost, and comes again when the link is up.
  void set_link(int node, bool up) const {
    must("ip -n " + prefix_ + " link set v" + std::to_string(node) + (up ? " up" : " down"));
  }

 private:
  [[nodiscard]] std::string name(int node) const { return prefix_ + "n" + std::to_string(node); }

  static std::string subnet(int node) { return "10.199." + std::to_string(node); }

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

  void add(int node) const {
    std::string const inside = "ip -n " + name(node) + " ";
    std::string const outer = "v" + std::to_string(node);
    must("ip netns add " + name(node));
    must("ip -n " + prefix_ + " link add " + outer + " type veth peer name eth0 netns " + name(node));
    must("ip -n " + prefix_ + " addr add " + subnet(node) + ".1/24 dev " + outer);
    must("ip -n " + prefix_ + " link set " + outer + " up");
    must(inside + "addr add " + address(node) + "/24 dev eth0");
    must(inside + "link set eth0 up");
    must(inside + "link set lo up");
    must(inside + "route add default via " + subnet(node) + ".1");
  }

  int nodes_;
  std::string prefix_;
};

}  // namespace switchyard::test
