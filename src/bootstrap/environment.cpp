#include "bootstrap/environment.hpp"

#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/number.hpp"
#include "bootstrap/address.hpp"
#include "layout/topology.hpp"

namespace switchyard {

namespace {

// The variables of one launcher.
struct Launcher {
  char const* name;
  char const* rank;
  char const* size;
  // The number of ranks on this node, or of nodes: more than one node needs an address. May be null.
  char const* local_size;
  char const* num_nodes;
};

// In this order: mpirun may run inside an allocation of Slurm, torchrun may be run by either.
constexpr std::array launchers{
    Launcher{"Switchyard", "SWITCHYARD_RANK", "SWITCHYARD_WORLD_SIZE", nullptr, nullptr},
    Launcher{"torchrun", "RANK", "WORLD_SIZE", nullptr, nullptr},
    Launcher{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", nullptr},
    Launcher{"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", nullptr},
    Launcher{"srun", "SLURM_PROCID", "SLURM_NTASKS", nullptr, "SLURM_STEP_NUM_NODES"},
};

class Reader {
 public:
  explicit Reader(Environment const& environment) : environment_(environment) {}

  [[nodiscard]] std::optional<std::string> text(char const* variable) const {
    return variable != nullptr ? environment_(variable) : std::nullopt;
  }

  [[nodiscard]] std::string needed(char const* variable, std::string_view because) const {
    auto value = text(variable);
    require(value.has_value(), "{}: expected a value, because {} is set; seen none", variable, because);
    return *value;
  }

 private:
  Environment const& environment_;
};

// FNV-1a: the same on every rank, whatever the standard library.
std::uint64_t hash_of(std::string_view text) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (char const c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

Launcher const& find_launcher(Reader const& reader) {
  for (Launcher const& launcher : launchers)
    if (reader.text(launcher.rank) || (&launcher == launchers.data() && reader.text(launcher.size)))
      return launcher;
  throw InvalidArgument(
      "no launcher found: expected SWITCHYARD_RANK, RANK (torchrun), OMPI_COMM_WORLD_RANK (mpirun), PMI_RANK or "
      "SLURM_PROCID (srun), seen none of them");
}

// What tells this job from others that our user runs here. Empty when the launcher does not say.
std::string job_id(Reader const& reader, Launcher const& launcher) {
  if (std::string_view(launcher.name) == "torchrun") return reader.text("TORCHELASTIC_RUN_ID").value_or("");
  for (char const* const variable : {"OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE", "PMI_JOBID"})
    if (auto id = reader.text(variable)) return *id;
  auto const slurm_job = reader.text("SLURM_JOB_ID");
  return slurm_job ? *slurm_job + "." + reader.text("SLURM_STEP_ID").value_or("") : "";
}

void check_one_node(Reader const& reader, Launcher const& launcher, int size) {
  constexpr char const* hint =
      "ranks on several nodes need SWITCHYARD_TOKEN, and SWITCHYARD_STORE or MASTER_ADDR and MASTER_PORT";
  if (auto const local = reader.text(launcher.local_size))
    require(number_between(1, size, launcher.local_size, *local) == size, "{}: expected {}, seen {}: {}",
            launcher.local_size, size, *local, hint);
  if (auto const nodes = reader.text(launcher.num_nodes))
    require(*nodes == "1", "{}: expected 1, seen '{}': {}", launcher.num_nodes, *nodes, hint);
}

std::string address_of_master(Reader const& reader) {
  constexpr int highest_port = 65535;
  std::string const host = parse_host(reader.needed("MASTER_ADDR", "MASTER_PORT"), "MASTER_ADDR");
  std::string const text = reader.needed("MASTER_PORT", "MASTER_ADDR");
  auto const offset = static_cast<int>(config_number(Setting::port_offset));
  int const port = number_between(1, highest_port - offset, "MASTER_PORT", text) + offset;
  return HostPort{host, static_cast<std::uint16_t>(port)}.text();
}

std::string address_of_job(Reader const& reader, Launcher const& launcher, int size) {
  constexpr std::uint64_t first_port = 20000;
  constexpr std::uint64_t num_ports = 10000;
  std::string const id = job_id(reader, launcher);
  require(!id.empty(),
          "SWITCHYARD_STORE: expected host:port, because {} is set but neither MASTER_ADDR nor the id of a job; "
          "seen none",
          launcher.rank);
  check_one_node(reader, launcher, size);
  std::uint64_t const hash = hash_of(fmt::format("port:{}:{}", id, ::getuid()));
  return fmt::format("127.0.0.1:{}", first_port + hash % num_ports);
}

std::string find_address(Reader const& reader, Launcher const& launcher, int size) {
  if (auto const store = reader.text("SWITCHYARD_STORE")) {
    return parse_host_port(*store, "SWITCHYARD_STORE").text();
  }
  if (reader.text("MASTER_ADDR") || reader.text("MASTER_PORT")) return address_of_master(reader);
  require(std::string_view(launcher.name) != "torchrun",
          "MASTER_ADDR: expected a host, because RANK is set (or SWITCHYARD_STORE: host:port); seen none");
  return address_of_job(reader, launcher, size);
}

}  // namespace

Environment process_environment() {
  return [](std::string const& variable) -> std::optional<std::string> {
    char const* const value = std::getenv(variable.c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  };
}

CommunicatorOptions options_from_environment(Environment const& environment) {
  Reader const reader(environment);
  Launcher const& launcher = find_launcher(reader);
  CommunicatorOptions options;
  options.size = number_between(1, max_ranks, launcher.size, reader.needed(launcher.size, launcher.rank));
  options.rank = number_between(0, options.size - 1, launcher.rank, reader.needed(launcher.rank, launcher.size));
  options.address = find_address(reader, launcher, options.size);
  std::string const derived = fmt::format("token:{}:{}", job_id(reader, launcher), ::getuid());
  options.token = reader.text("SWITCHYARD_TOKEN").value_or("");
  // An empty one, as scripts may leave it, is none.
  options.derived_token = options.token.empty();
  if (options.derived_token) options.token = fmt::format("{:016x}", hash_of(derived));
  return options;
}

}  // namespace switchyard
