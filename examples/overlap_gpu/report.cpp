#include "report.hpp"

#include <cstdio>
#include <fstream>
#include <iomanip>
#include <stdexcept>

namespace example {

namespace {

enum Thread { communication = 0, compute = 1 };

// Events of a rank, with times since `origin`.
class RankTrace {
 public:
  RankTrace(std::ofstream& file, std::size_t rank, unsigned long long origin)
      : file_(file), rank_(rank), origin_(origin) {}

  void name(char const* kind, Thread thread, std::string const& value) {
    begin("M", kind, thread) << R"(,"args":{"name":")" << value << "\"}}";
  }
  void span(std::string const& name, Thread thread, Span const& span) {
    begin("X", name, thread) << R"(,"ts":)" << static_cast<double>(span.begin - origin_) / 1e3 << R"(,"dur":)"
                             << length_us(span) << '}';
  }

 private:
  std::ofstream& begin(char const* kind, std::string const& name, Thread thread) {
    bool const first = rank_ == 0 && events_++ == 0;
    file_ << (first ? "\n" : ",\n") << R"({"ph":")" << kind << R"(","name":")" << name << R"(","pid":)" << rank_
          << R"(,"tid":)" << thread;
    return file_;
  }

  std::ofstream& file_;
  std::size_t rank_;
  unsigned long long origin_;
  int events_ = 0;
};

void write_phases(RankTrace& trace, Run const& run) {
  Span at{run.dispatch.begin, run.dispatch.begin};
  for (Phase const& phase : run.phases) {
    if (phase.name[0] == '\0') break;
    at = {at.end, std::min(at.end + static_cast<unsigned long long>(phase.us * 1e3), run.dispatch.end)};
    trace.span(phase.name.data(), communication, at);
  }
}

// GPUs have clocks of their own: time begins with the first span on the rank's GPU.
unsigned long long origin_of(std::vector<Measured> const& ranks, std::array<char, 16> const& gpu) {
  unsigned long long origin = ~0ULL;
  for (Measured const& rank : ranks)
    if (rank.gpu == gpu) origin = std::min({origin, rank.together.dispatch.begin, rank.together.product.begin});
  return origin;
}

}  // namespace

void print_table(std::vector<Measured> const& ranks, Setup const& setup) {
  std::printf("%zu ranks, %d tokens each; a dispatch takes %d SMs, a product %d\n", ranks.size(), setup.tokens,
              setup.sms, ranks.front().product_blocks);
  std::printf("%4s %6s %12s %12s %12s %12s %12s %12s\n", "rank", "width", "dispatch", "product", "one after",
              "both", "overlap us", "% of the");
  std::printf("%4s %6s %12s %12s %12s %12s %12s %12s\n", "", "", "alone us", "alone us", "the other us",
              "together us", "in the trace", "shorter");
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    Measured const& rank = ranks[i];
    Run const& both = rank.together;
    double const shorter = std::min(length_us(both.dispatch), length_us(both.product));
    std::printf("%4zu %6d %12.1f %12.1f %12.1f %12.1f %12.1f %12.0f\n", i, rank.width,
                rank.dispatch_alone.total_us(), rank.product_alone.total_us(), rank.one_after_the_other.total_us(),
                both.total_us(), both.overlap_us(), shorter > 0 ? 100 * both.overlap_us() / shorter : 0.0);
  }
}

void write_trace(std::vector<Measured> const& ranks, std::string const& path) {
  std::ofstream file(path);
  file << std::fixed << std::setprecision(3) << R"({"displayTimeUnit":"ns","traceEvents":[)";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    RankTrace trace(file, i, origin_of(ranks, ranks[i].gpu));
    trace.name("process_name", communication, "rank " + std::to_string(i));
    trace.name("thread_name", communication, "communication stream");
    trace.name("thread_name", compute, "compute stream");
    trace.span("dispatch", communication, ranks[i].together.dispatch);
    write_phases(trace, ranks[i].together);
    trace.span("matrix product", compute, ranks[i].together.product);
  }
  file << "\n]}\n";
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace example
