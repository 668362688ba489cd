#include "options.hpp"

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mpi_alltoall {

namespace {

template <typename Number>
void read(Number& target, std::string_view name, std::string_view text) {
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), target);
  if (error != std::errc{} || end != text.data() + text.size() || target < Number{0}) {
    throw std::invalid_argument(std::string(name) + ": not a number: " + std::string(text));
  }
}

void set(Options& options, std::string_view name, std::string_view text) {
  if (name == "--tokens") return read(options.tokens, name, text);
  if (name == "--hidden") return read(options.hidden, name, text);
  if (name == "--top-k") return read(options.top_k, name, text);
  if (name == "--experts") return read(options.experts, name, text);
  if (name == "--seed") return read(options.seed, name, text);
  if (name == "--warmup") return read(options.warmup, name, text);
  if (name == "--iterations") return read(options.iterations, name, text);
  throw std::invalid_argument("unknown option " + std::string(name));
}

void check(Options const& options) {
  if (options.top_k < 1 || options.top_k > options.experts) throw std::invalid_argument("--top-k: 1 to --experts");
  if (options.hidden < 1) throw std::invalid_argument("--hidden: at least 1");
  if (options.iterations < 1) throw std::invalid_argument("--iterations: at least 1");
}

}  // namespace

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) throw std::invalid_argument(std::string(argv[i]) + ": needs a value");
    set(options, argv[i], argv[i + 1]);
  }
  check(options);
  return options;
}

}  // namespace mpi_alltoall
