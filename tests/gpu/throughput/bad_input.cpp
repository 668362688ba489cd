// Bad input on the CUDA engine: every rank refuses, nothing moves, and the buffer goes on working.
#include "gpu/leaver.hpp"
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

class GpuBadInput : public GpuTest {};

struct Spoilt {
  char const* what;
  std::vector<std::string_view> words;
  std::function<void(DispatchArgs&)> spoil;
};

void expect_dispatch_refused(Case const& c, Spoilt const& spoilt) {
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, spoilt.what, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    for (int i = 0; i < 2; ++i) {
      device.clear();
      DispatchArgs args = device.upload(inputs.args());
      if (communicator.rank() == culprit) spoilt.spoil(args);
      expect_refusal(spoilt.what, culprit, spoilt.words, [&] { (void)buffer.dispatch(args); });
      gpu_round_trip(p, buffer, device);
    }
    communicator.barrier();
  });
}

TEST_F(GpuBadInput, Dispatch) {
  static std::vector<std::byte> const host(1 << 20U);
  for (Spoilt const& spoilt : std::vector<Spoilt>{
           {"x of the host", {"x", "host"}, [](DispatchArgs& a) { a.x.data = host.data(); }},
           {"x on device cpu", {"x", "cuda", "cpu"}, [](DispatchArgs& a) { a.x.device = Device::cpu; }},
           {"hidden", {"x", "dimension 1"}, [](DispatchArgs& a) { --a.x.shape[1]; }},
           {"alignment", {"expert_alignment"}, [](DispatchArgs& a) { a.expert_alignment = 2; }},
           {"num_sms", {"num_sms"}, [](DispatchArgs& a) { a.num_sms = 100000; }}}) {
    expect_dispatch_refused(refusal_case(), spoilt);
  }
}

TEST_F(GpuBadInput, IdsOutOfRange) {
  Case const c = refusal_case();
  Problem bad = make_problem(c);
  Problem const good = bad;
  bad.inputs[culprit].ids[3] = 8;
  run_ranks(c.launch, c.ranks, "an id out of range", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(good));
    for (int i = 0; i < 2; ++i) {
      RankInputs const inputs(bad, communicator.rank());
      DispatchArgs const args = device.upload(inputs.args());
      expect_refusal("an id", culprit, {"topk_idx[1, 1]", "7", "8"}, [&] { (void)buffer.dispatch(args); });
      gpu_round_trip(good, buffer, device);
    }
    communicator.barrier();
  });
}

// Ranks make different calls: all throw the same error, and go on together.
TEST_F(GpuBadInput, DispatchMeetsCombine) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "a dispatch meets a combine", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    Handle const handle = gpu_dispatch(p, buffer, device, inputs.args());
    Tensor const outputs = buffer.allocate(c.combine_dtype, {handle.num_recv_rows(), c.hidden});
    for (int i = 0; i < 2; ++i) {
      DispatchArgs const args = device.upload(inputs.args());
      auto const error = expect_throw<InvalidArgument>("calls that differ", [&] {
        if (communicator.rank() == culprit)
          (void)buffer.combine(CombineArgs{.x = outputs, .handle = handle, .cuda_stream = device.stream()});
        else
          (void)buffer.dispatch(args);
      });
      check_names(error, {"call", "dispatch", "combine"});
      gpu_round_trip(p, buffer, device);
    }
    communicator.barrier();
  });
}

BufferOptions running_ahead(Problem const& p) {
  BufferOptions options = gpu_options_for(p);
  options.errors_at_once = false;
  return options;
}

// A combine whose host does not wait returns while the stream before it is busy: a host function on that stream
// ends only when the call has returned. A host that waited would keep it there until it gives up.
struct Hold {
  std::atomic<bool> returned{false};
  std::atomic<bool> in_time{false};

  static void wait(void* self) {
    auto& hold = *static_cast<Hold*>(self);
    for (int i = 0; i < 2000 && !hold.returned.load(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    hold.in_time = hold.returned.load();
  }
};

TEST_F(GpuBadInput, HostsThatRunAhead) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "hosts that run ahead", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, running_ahead(p));
    RankInputs const inputs(p, communicator.rank());
    Handle const handle = gpu_dispatch(p, buffer, device, inputs.args());
    Tensor const outputs = buffer.allocate(c.combine_dtype, {handle.num_recv_rows(), c.hidden});
    DispatchArgs cached = device.upload(inputs.args());
    cached.topk_idx = cached.topk_weights = {};
    cached.handle = handle;
    for (bool const combines : {true, false}) {
      communicator.barrier();
      Hold hold;
      auto* const stream = reinterpret_cast<cudaStream_t>(device.stream());
      check_cuda(cudaLaunchHostFunc(stream, Hold::wait, &hold), "holding");
      if (combines) {
        (void)buffer.combine(CombineArgs{.x = outputs, .handle = handle, .cuda_stream = device.stream()});
      } else {
        (void)buffer.dispatch(cached);
      }
      hold.returned = true;
      buffer.synchronize();
      check(hold.in_time.load(), combines ? "a combine waited for the stream" : "a dispatch waited for the stream");
    }
    for (int i = 0; i < 2; ++i) gpu_round_trip(p, buffer, device);
    communicator.barrier();
  });
}

// All ranks refuse: each says why, and the buffer goes on.
TEST_F(GpuBadInput, AllRefuseWhatTheyDoNotWaitFor) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "all refuse", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, running_ahead(p));
    RankInputs const inputs(p, communicator.rank());
    Handle const handle = gpu_dispatch(p, buffer, device, inputs.args());
    Tensor const outputs = buffer.allocate(c.combine_dtype, {handle.num_recv_rows() + 1, c.hidden});
    for (int i = 0; i < 2; ++i) {
      auto const error = expect_throw<InvalidArgument>("a row too many", [&] {
        (void)buffer.combine(CombineArgs{.x = outputs, .handle = handle, .cuda_stream = device.stream()});
      });
      check_names(error, {"x"});
      gpu_round_trip(p, buffer, device);
    }
    communicator.barrier();
  });
}

// One rank refuses: it says why. The others do not wait, and learn of it later. All go on after a reset.
TEST_F(GpuBadInput, OneRefusesWhatOthersDoNotWaitFor) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "one refuses", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, running_ahead(p));
    RankInputs const inputs(p, communicator.rank());
    for (bool const combines : {true, false}) {
      Handle const handle = gpu_dispatch(p, buffer, device, inputs.args());
      Tensor const outputs = buffer.allocate(c.combine_dtype, {handle.num_recv_rows() + 1, c.hidden});
      bool const refuses = communicator.rank() == culprit;
      ConstTensorView x = outputs;
      if (!refuses) --x.shape[0];
      DispatchArgs cached = device.upload(inputs.args());
      cached.topk_idx = cached.topk_weights = {};
      cached.handle = handle;
      if (refuses) --cached.x.shape[0];
      auto const call = [&] {
        if (combines) {
          (void)buffer.combine(CombineArgs{.x = x, .handle = handle, .cuda_stream = device.stream()});
        } else {
          (void)buffer.dispatch(cached);
        }
      };
      auto const error = expect_throw<InvalidArgument>(refuses ? "the call" : "a later wait", [&] {
        call();
        check(!refuses, "the rank that refuses returned");
        buffer.synchronize();
      });
      if (refuses) {
        check_names(error, {"x"});
      } else {
        check_names(error, {"errors_at_once", "refused"});
      }
      (void)expect_throw<InvalidArgument>("the next call", [&] { buffer.synchronize(); });
      buffer.reset();
      for (int i = 0; i < 2; ++i) gpu_round_trip(p, buffer, device);
    }
    communicator.barrier();
  });
}

TEST_F(GpuBadInput, SomeRunAhead) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "some run ahead", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(p);
    options.errors_at_once = communicator.rank() == culprit;
    auto const error =
        expect_throw<InvalidArgument>("options", [&] { Buffer const buffer(communicator, options); });
    check_names(error, {"errors_at_once"});
    communicator.barrier();
  });
}

TEST_F(GpuBadInput, HeapTooSmall) {
  Case const c{.ranks = 3, .tokens = 400, .counts = Tokens::equal, .hidden = 512, .routing = Routing::one_expert};
  Problem const p = make_problem(c);
  Case small = c;
  small.tokens = 10;
  Problem const fits = make_problem(small);
  run_ranks(c.launch, c.ranks, "a heap too small", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(p);
    options.heap_bytes = 1 << 20U;
    Buffer buffer(communicator, options);
    // A heap may be larger than it was asked to be, by the granularity of GPU memory.
    Tensor const filler = buffer.allocate(DType::u8, {static_cast<std::int64_t>(1) << 20U});
    for (int i = 0; i < 2; ++i) {
      device.clear();
      RankInputs const inputs(p, communicator.rank());
      DispatchArgs args = device.upload(inputs.args());
      args.num_worst_tokens = c.ranks * c.tokens;  // without it the call would run in rounds
      auto const error = expect_throw<OutOfMemory>("a small heap", [&] { (void)buffer.dispatch(args); });
      check_names(error, {"heap_bytes"});
      gpu_round_trip(fits, buffer, device);
    }
    communicator.barrier();
  });
}

TEST_F(GpuBadInput, APeerThatLeaves) {
  expect_leaver_lost(Launch::threads);
}

TEST_F(GpuBadInput, APeerThatIsLate) {
  Case const c{.ranks = 2, .tokens = 10, .hidden = 64};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "a peer is late", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    RankInputs const inputs(p, communicator.rank());
    BufferOptions options = gpu_options_for(p);
    options.timeout = std::chrono::milliseconds{500};
    Buffer buffer(communicator, options);
    if (communicator.rank() == 0) {
      DispatchArgs const args = device.upload(inputs.args());
      auto const error = expect_throw<Timeout>("a dispatch", [&] { (void)buffer.dispatch(args); });
      check_equal(error.peer(), 1, "peer of the error: ", error.what());
      check_cuda(cudaDeviceSynchronize(), "the context lives");
    }
    communicator.barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
