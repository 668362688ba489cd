// The model of a call's time: by hand for two nodes, and by what must hold for any job.
#include "plan/simulator/simulate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "support/random.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::simulator {
namespace {

using test::Random;

// Evenly: token t goes to experts t, t + 1, ... modulo all.
struct Even {
  explicit Even(Job const& job) : ids(static_cast<std::size_t>(job.ranks)) {
    for (int source = 0; source < job.ranks; ++source) {
      auto& mine = ids[static_cast<std::size_t>(source)];
      for (std::int64_t token = 0; token < job.tokens; ++token)
        for (int slot = 0; slot < job.top_k; ++slot)
          mine.push_back(
              static_cast<std::int32_t>((source + token + slot * job.experts / job.top_k) % job.experts));
      sources.push_back({.rank = source, .ids = mine});
    }
  }
  std::vector<std::vector<std::int32_t>> ids;
  std::vector<SourceIds> sources{};
};

Job job_of(Machine const& machine, std::string_view name, Mode mode, int ranks, std::int64_t tokens) {
  return {.machine = &machine,
          .library = &library(name),
          .mode = mode,
          .ranks = ranks,
          .tokens = tokens,
          .top_k = 8,
          .experts = 256,
          .payload_bytes = 7168,
          .scale_bytes = 224,
          .output_bytes = 14336};
}

CallPlan plan_of(Job const& job) {
  Even const even(job);
  return simulate(job, even.sources);
}

// Two nodes of one GPU, of which each sends 10 tokens to the other: all by hand, with figures of the library.
TEST(Simulate, TwoNodesByHand) {
  Machine const machine{.name = "two",
                        .gpus_per_node = 1,
                        .sms = 100,
                        .memory_rate = 1e12,
                        .memory_bytes = 1e10,
                        .link_rate = 1e11,
                        .network = {.rate = 1e10, .hop_us = 7}};
  Job const job{.machine = &machine,
                .library = &library("deepep"),
                .mode = Mode::latency,
                .ranks = 2,
                .tokens = 10,
                .top_k = 1,
                .experts = 2,
                .payload_bytes = 9000,
                .scale_bytes = 984,
                .output_bytes = 20000};
  std::vector<std::int32_t> const to_1(10, 1);
  std::vector<std::int32_t> const to_0(10, 0);
  std::vector<SourceIds> const sources{{.rank = 0, .ids = to_1}, {.rank = 1, .ids = to_0}};
  auto const plan = simulate(job, sources);
  auto const& figures = library("deepep").latency;
  EXPECT_EQ(plan.nodes, 2);
  double const bytes = 10 * (9000 + 984 + 16);
  EXPECT_DOUBLE_EQ(plan.dispatch.nic_bytes, bytes);
  EXPECT_DOUBLE_EQ(plan.combine.nic_bytes, 10 * 20000.0);
  EXPECT_DOUBLE_EQ(plan.dispatch.link_bytes, 0);
  double const nic = bytes / (1e10 * figures.nodes.nic_share) * 1e6;
  EXPECT_NEAR(plan.dispatch.time.nic, nic, 1e-9);
  double const memory = 2 * bytes / (1e12 * figures.dispatch.memory_share) * 1e6;
  EXPECT_NEAR(plan.dispatch.time.link, memory, 1e-9);
  double const fixed = figures.dispatch.fixed_us + figures.dispatch.fixed_us_per_expert * 1 + 7;
  EXPECT_NEAR(plan.dispatch.time.fixed, fixed, 1e-9);
  // The slower of the two counts alone where the other is far from it.
  EXPECT_NEAR(plan.dispatch.time.total, fixed + nic, 0.01);
  EXPECT_EQ(plan.dispatch.time.bottleneck, fixed > nic ? Bottleneck::fixed_cost : Bottleneck::nic);
  EXPECT_NEAR(plan.dispatch.messages_per_second, 10 / plan.dispatch.time.total * 1e6, 1e-6);
}

// Two GPUs of one node: SMs, NVLink and the filling of the pipeline.
TEST(Simulate, OneNodeByHand) {
  Machine const machine{.name = "one",
                        .gpus_per_node = 2,
                        .sms = 100,
                        .sm_speed = 2,
                        .memory_rate = 1e12,
                        .memory_bytes = 1e10,
                        .link_rate = 1e12,
                        .network = {.rate = 1e10, .hop_us = 7}};
  Job const job{.machine = &machine,
                .library = &library("deepep"),
                .mode = Mode::throughput,
                .ranks = 2,
                .tokens = 100,
                .top_k = 2,
                .experts = 2,
                .payload_bytes = 8000,
                .scale_bytes = 176,
                .output_bytes = 20000,
                .sms = 4};
  std::vector<std::int32_t> ids;
  for (int token = 0; token < 100; ++token) ids.insert(ids.end(), {0, 1});
  std::vector<SourceIds> const sources{{.rank = 0, .ids = ids}, {.rank = 1, .ids = ids}};
  auto const plan = simulate(job, sources);
  auto const& figures = library("deepep").throughput.dispatch;
  double const row = 8000 + 176 + 2 * 12;
  double const sms = 2 * 100 * row / (4 * figures.sm_rate * 2) * 1e6;
  double const link = 100 * row / (1e12 * figures.link_share) * 1e6;
  EXPECT_NEAR(plan.dispatch.time.sms, sms, 1e-9);
  EXPECT_NEAR(plan.dispatch.time.link, link, 1e-9);
  double const moving = std::pow(std::pow(sms, 8) + std::pow(link, 8), 1.0 / 8);
  double const fill = figures.fill_us * (1 - std::exp(-moving / figures.fill_us));
  EXPECT_NEAR(plan.dispatch.time.total, figures.fixed_us + moving + fill, 1e-9);
}

// Nothing but node 1's first rank gets rows: what arrives there counts, not what a rank sends.
TEST(Simulate, TheFullestNicCounts) {
  Machine const machine = known_machine("h100");
  Job const job = job_of(machine, "deepep", Mode::latency, 16, 50);
  Job one = job;
  one.top_k = 1;
  std::vector<std::int32_t> const ids(50, 8 * 16);
  std::vector<SourceIds> sources;
  for (int rank = 0; rank < 16; ++rank) sources.push_back({.rank = rank, .ids = ids});
  auto const plan = simulate(one, sources);
  double const arrive = 8 * 50 * (7168 + 224 + 16.0);
  double const rate = machine.network.rate * library("deepep").latency.nodes.nic_share;
  EXPECT_NEAR(plan.dispatch.time.nic, arrive / rate * 1e6, 0.1);
  EXPECT_NEAR(plan.dispatch.nic_bytes, arrive / 16, 1e-6);
}

TEST(Simulate, OneNodeHasNoWireBytesAndNoHops) {
  for (Library const& each : libraries()) {
    for (Mode const mode : {Mode::throughput, Mode::latency}) {
      if (!each.has(mode)) continue;
      auto const plan = plan_of(job_of(known_machine("h200"), each.name, mode, 8, 128));
      EXPECT_EQ(plan.dispatch.nic_bytes + plan.combine.nic_bytes, 0) << each.name;
      EXPECT_EQ(plan.dispatch.time.nic, 0) << each.name;
      EXPECT_EQ(plan.dispatch.counts_us, 0) << each.name;
      EXPECT_GT(plan.dispatch.link_bytes, 0) << each.name;
    }
  }
}

// Counts go out and answers come back: two hops for each doubling of nodes.
TEST(Simulate, CountsAreARoundBetweenNodes) {
  auto const counts = [](int ranks) {
    return plan_of(job_of(known_machine("h100"), "deepep", Mode::throughput, ranks, 8)).dispatch.counts_us;
  };
  EXPECT_DOUBLE_EQ(counts(16), library("deepep").throughput.nodes.counts_us);
  EXPECT_NEAR(counts(64) - counts(16), 4 * known_machine("h100").network.hop_us, 1e-9);
  EXPECT_EQ(plan_of(job_of(known_machine("h100"), "deepep", Mode::throughput, 16, 8)).combine.counts_us, 0);
}

TEST(Simulate, MoreIsNeverFaster) {
  for (Library const& each : libraries()) {
    for (Mode const mode : {Mode::throughput, Mode::latency}) {
      if (!each.has(mode)) continue;
      for (int const ranks : {8, 16, 64}) {
        double dispatch = 0;
        double combine = 0;
        for (std::int64_t tokens = 1; tokens <= test::by_scale(256, 1024); tokens *= 4) {
          Job job = job_of(known_machine("h100"), each.name, mode, ranks, tokens);
          job.sms = 24;
          auto const plan = plan_of(job);
          SCOPED_TRACE(testing::Message() << each.name << " ranks " << ranks << " tokens " << tokens);
          EXPECT_GE(plan.dispatch.time.total, dispatch * 0.999);
          EXPECT_GE(plan.combine.time.total, combine * 0.999);
          dispatch = plan.dispatch.time.total;
          combine = plan.combine.time.total;
          job.payload_bytes *= 2;
          EXPECT_GE(plan_of(job).dispatch.time.total, dispatch);
          job.sms = 12;
          EXPECT_GE(plan_of(job).dispatch.time.total, dispatch);
        }
      }
    }
  }
}

TEST(Simulate, AFasterMachineIsNeverSlower) {
  Random random(5);
  for (int round = 0; round < 40; ++round) {
    Machine const machine = known_machines()[static_cast<std::size_t>(
        random.between(0, static_cast<int>(known_machines().size()) - 1))];
    Machine faster = machine;
    double const by = 1 + random.between(0, 100) / 50.0;
    switch (random.between(0, 3)) {
      case 0: faster.link_rate *= by; break;
      case 1: faster.network.rate *= by; break;
      case 2: faster.memory_rate *= by; break;
      default: faster.network.hop_us /= by;
    }
    Job const job = job_of(machine, "deepep", random.between(0, 1) == 1 ? Mode::latency : Mode::throughput,
                           8 << random.between(0, 3), 1 << random.between(0, 7));
    Job with = job;
    with.machine = &faster;
    with.sms = std::min(20, machine.sms);
    Job slow = job;
    slow.sms = with.sms;
    auto const first = plan_of(slow);
    auto const second = plan_of(with);
    SCOPED_TRACE(testing::Message() << machine.name << " round " << round);
    EXPECT_LE(second.dispatch.time.total, first.dispatch.time.total + 1e-9);
    EXPECT_LE(second.combine.time.total, first.combine.time.total + 1e-9);
  }
}

TEST(Simulate, IntervalsHoldTheFigureAndWiden) {
  for (Library const& each : libraries()) {
    auto const plan = plan_of(job_of(known_machine("h100"), each.name, Mode::latency, 8, 64));
    EXPECT_LT(plan.dispatch.us.low, plan.dispatch.time.total);
    EXPECT_GT(plan.dispatch.us.high, plan.dispatch.time.total);
    EXPECT_GE(plan.dispatch.us.low, 0);
  }
  auto const width = [](Job const& job) {
    auto const plan = plan_of(job);
    return plan.combine.us.high / plan.combine.us.low;
  };
  auto const near = job_of(known_machine("h100"), "deepep", Mode::throughput, 32, 256);
  EXPECT_GT(width(near), width(job_of(known_machine("h100"), "deepep", Mode::throughput, 8, 256)));
  EXPECT_GT(width(job_of(known_machine("h100"), "deepep", Mode::throughput, 256, 256)), width(near));
  auto const one_node = [](std::string_view machine) {
    return job_of(known_machine(machine), "deepep", Mode::latency, 8, 64);
  };
  EXPECT_GT(width(one_node("b200")), width(one_node("h100")));
  EXPECT_GT(width(job_of(known_machine("gh200-slingshot"), "deepep", Mode::throughput, 32, 256)), width(near));
  auto const far = plan_of(job_of(known_machine("gh200-slingshot"), "deepep", Mode::throughput, 32, 256));
  EXPECT_THAT(far.widened, testing::Contains(testing::HasSubstr("network")));
}

TEST(Simulate, GpusThatALibraryDoesNotRunOnAreSaid) {
  auto const widened = [](Machine const& machine, std::string_view library) {
    return plan_of(job_of(machine, library, Mode::latency, 8, 64)).widened;
  };
  auto const does_not_run = testing::Contains(testing::HasSubstr("does not run on"));
  for (Machine const& machine : known_machines())
    for (Library const& each : libraries()) {
      bool const runs = (each.name == "mori") == (machine.name == "mi300x" || machine.name == "mi355x");
      if (runs)
        EXPECT_THAT(widened(machine, each.name), testing::Not(does_not_run)) << each.name << machine.name;
      else
        EXPECT_THAT(widened(machine, each.name), does_not_run) << each.name << machine.name;
    }
  Machine ours = known_machine("mi300x");
  ours.vendor = Vendor::unknown;
  EXPECT_THAT(widened(ours, "switchyard"), testing::Not(does_not_run));
}

TEST(Simulate, EnoughSmsAreEvenAndReachTheBest) {
  Job job = job_of(known_machine("h100"), "deepep", Mode::throughput, 8, 4096);
  auto const chosen = plan_of(job);
  EXPECT_EQ(chosen.sms % 2, 0);
  EXPECT_LT(chosen.sms, 132);
  auto const both = [](CallPlan const& plan) { return plan.dispatch.time.total + plan.combine.time.total; };
  job.sms = 132;
  double const best = both(plan_of(job));
  EXPECT_GE(best, 0.95 * both(chosen));
  job.sms = chosen.sms - 2;
  EXPECT_LT(best, 0.95 * both(plan_of(job)));
}

TEST(Simulate, RanksWithMoreRowsAreStragglers) {
  Job const job = job_of(known_machine("h100"), "deepep", Mode::latency, 8, 512);
  std::vector<std::int32_t> ids;
  for (std::int64_t token = 0; token < job.tokens; ++token)
    for (int slot = 0; slot < 8; ++slot)
      ids.push_back(slot < 4 ? slot : static_cast<int>((token * 8 + slot) % 252) + 4);
  std::vector<SourceIds> sources;
  for (int rank = 0; rank < 8; ++rank) sources.push_back({.rank = rank, .ids = ids});
  auto const plan = simulate(job, sources);
  EXPECT_GT(plan.dispatch.time.total, 1.5 * plan.dispatch.median_us);
  EXPECT_GE(plan.dispatch.p90_us, plan.dispatch.median_us);
}

TEST(Simulate, WhatCannotBeIsRefused) {
  Machine const machine = known_machine("h100");
  auto const refused = [](Job const& job, char const* why) {
    try {
      plan_of(job);
      ADD_FAILURE() << "expected a refusal: " << why;
    } catch (InvalidArgument const& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(why));
    }
  };
  Job job = job_of(machine, "pplx", Mode::throughput, 8, 1);
  refused(job, "pplx has no throughput mode");
  job = job_of(machine, "deepep", Mode::throughput, 8, 1);
  job.sms = 133;
  refused(job, "sms: expected 0..132");
  job = job_of(machine, "deepep", Mode::throughput, 512, 1);
  refused(job, "experts: expected 512 or more");
}

TEST(KnownMachines, AMisspeltNameIsExplained) {
  try {
    known_machine("h10");
    ADD_FAILURE();
  } catch (InvalidArgument const& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("expected one of h100"));
  }
}

}  // namespace
}  // namespace switchyard::simulator
