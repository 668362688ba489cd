// A matrix product beside a dispatch, on GPUs: the product fills the time in which tokens travel.
//
// In a layer the product would be a shared expert, which needs no token of another rank. The dispatch runs on the
// buffer's stream and takes a few SMs (BufferOptions::num_sms), the product on a stream of ours and takes the
// others. rank.cpp shows how (Rank::start_dispatch, Rank::run); the other files are the product, the checks and the
// report.
//
//   overlap_gpu [--ranks 2] [--sms 8] [--tokens 4096] [--trace overlap_gpu.json]
//
// Starts its ranks itself, unless torchrun, mpirun or srun has. Ranks take the GPUs in turn; those that share one
// run side by side only under MPS (nvidia-cuda-mps-control -d). Writes a trace for ui.perfetto.dev. Exits with 0
// when all results are right and on every rank dispatch and product overlap, with 77 when there is no GPU for it,
// else with 1.
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "rank.hpp"
#include "report.hpp"

namespace {

using switchyard::Communicator;

constexpr int skipped = 77;
constexpr unsigned limit_s = 90;  // a rank that takes longer is ended by the system

struct Options {
  int ranks = 2;
  int sms = 8;
  int tokens = 4096;
  std::string trace = "overlap_gpu.json";
};

int number(std::string_view name, std::string_view text, int least, int most) {
  int value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most)
    throw std::runtime_error(std::string(name) + ": expected " + std::to_string(least) + ".." +
                             std::to_string(most) + ", seen '" + std::string(text) + "'");
  return value;
}

Options parse(std::vector<std::string_view> const& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    std::string_view const name = arguments[i];
    std::string_view const value = i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (name == "--ranks") {
      options.ranks = number(name, value, 1, 64);
    } else if (name == "--sms") {
      options.sms = number(name, value, 1, 1024);
    } else if (name == "--tokens") {
      options.tokens = example::tile * (number(name, value, example::tile, 1 << 16) / example::tile);
    } else if (name == "--trace" && !value.empty()) {
      options.trace = value;
    } else {
      throw std::runtime_error("usage: overlap_gpu [--ranks N] [--sms N] [--tokens N] [--trace FILE]");
    }
  }
  return options;
}

bool has_launcher() {
  for (char const* const variable : {"SWITCHYARD_RANK", "RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

// Makes the rank's GPU the current one. Returns why there is none that this program could use; throws when there is
// one, but in trouble.
std::string choose_gpu(int rank, int& device) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
  if (error == cudaSuccess) error = cudaSetDevice(device = rank % count);
  if (error == cudaSuccess) error = example::load_kernels();
  for (cudaError_t const none :
       {cudaErrorNoDevice, cudaErrorInsufficientDriver, cudaErrorStubLibrary, cudaErrorNoKernelImageForDevice})
    if (error == none) return cudaGetErrorString(error);
  example::check(error, "choosing a GPU");
  return "";
}

int run_rank(Options const& options) {
  alarm(limit_s);
  Communicator communicator = Communicator::from_environment();
  example::Setup setup{.sms = options.sms, .tokens = options.tokens};
  std::string const why_none = choose_gpu(communicator.rank(), setup.device);
  if (!why_none.empty()) {
    if (communicator.rank() == 0) std::printf("skipped: no GPU that this build can use: %s\n", why_none.c_str());
    communicator.barrier();
    return skipped;
  }
  example::Measured const mine = example::Rank(communicator, setup).measure();
  std::vector<example::Measured> all;
  for (auto const& bytes : communicator.all_gather(std::as_bytes(std::span(&mine, 1))))
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof mine);
  if (communicator.rank() == 0) {
    example::print_table(all, setup);
    example::write_trace(all, options.trace);
    std::printf("trace: %s\n", options.trace.c_str());
  }
  communicator.barrier();
  if (mine.together.overlap_us() > 0) return 0;
  std::fprintf(stderr, "rank %d: dispatch and product did not overlap\n", communicator.rank());
  return 1;
}

int run_guarded(Options const& options) {
  try {
    return run_rank(options);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "overlap_gpu: %s\n", error.what());
    return 1;
  }
}

// Its exit status; 1 when it has none.
int wait_for(pid_t rank) {
  if (rank < 0) return 1;  // not forked: the others wait for it until their deadline
  int status = 0;
  if (waitpid(rank, &status, 0) == rank && WIFEXITED(status)) return WEXITSTATUS(status);
  std::fprintf(stderr, "overlap_gpu: a rank was ended by signal %d\n", WTERMSIG(status));
  return 1;
}

// 0 if all ranks gave 0, 77 if the others gave 77, else 1.
int wait_for_all(std::vector<pid_t> const& ranks) {
  int all = 0;
  for (pid_t const rank : ranks) {
    int const one = wait_for(rank);
    if (one != 0) all = one == skipped && all != 1 ? skipped : 1;
  }
  return all;
}

// Our own ranks find one another as those of any launcher do. They are forked before anything here touches CUDA: a
// process that has used it must not fork.
int run_children(Options const& options) {
  std::random_device random;
  std::string const store = "127.0.0.1:" + std::to_string(20000 + random() % 10000);
  std::string const token = std::to_string(random()) + std::to_string(random());
  setenv("SWITCHYARD_STORE", store.c_str(), 1);
  setenv("SWITCHYARD_TOKEN", token.c_str(), 1);
  setenv("SWITCHYARD_WORLD_SIZE", std::to_string(options.ranks).c_str(), 1);
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < options.ranks; ++rank) {
    setenv("SWITCHYARD_RANK", std::to_string(rank).c_str(), 1);
    pid_t const pid = fork();
    if (pid == 0) std::exit(run_guarded(options));
    ranks.push_back(pid);
  }
  return wait_for_all(ranks);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options const options = parse({argv + 1, argv + argc});
    return has_launcher() ? run_guarded(options) : run_children(options);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "overlap_gpu: %s\n", error.what());
    return 1;
  }
}
