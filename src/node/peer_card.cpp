#include "node/peer_card.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/check.hpp"
#include "base/random.hpp"
#include "base/unique_fd.hpp"

namespace switchyard {

RandomBytes random_bytes() {
  RandomBytes bytes{};
  fill_random(bytes);
  return bytes;
}

HostIdentity this_host() {
  constexpr char const* boot_id_path = "/proc/sys/kernel/random/boot_id";
  constexpr char const* namespace_path = "/proc/self/ns/net";
  HostIdentity host{};
  UniqueFd const file(check_call(::open(boot_id_path, O_RDONLY | O_CLOEXEC), boot_id_path));
  check_call(::read(file.get(), host.boot_id.data(), host.boot_id.size() - 1), boot_id_path);
  struct stat status {};
  check_call(::stat(namespace_path, &status), namespace_path);
  host.network_namespace = status.st_ino;
  return host;
}

std::string socket_name_text(RandomBytes const& name) {
  std::string text = "switchyard-";
  for (std::byte const byte : name) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

}  // namespace switchyard
