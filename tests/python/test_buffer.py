"""switchyard.Buffer: frameworks, memory, and results under way. Ranks are threads; see bodies/buffer.py, too."""

import ctypes
import weakref

import ml_dtypes
import numpy
import pytest
import reference
import switchyard
import torch
from producers import OnlyDlpack
from ranks import as_threads
from switchyard._frameworks import framework_of

ranks, tokens, hidden, experts, top_k = 3, 23, 256, 10, 4


def all_inputs(dtype=torch.bfloat16, lengths=(tokens, 0, 7)):
    return [
        reference.make_inputs(r, tokens=lengths[r], hidden=hidden, experts=experts, top_k=top_k, dtype=dtype)
        for r in range(ranks)
    ]


def make_buffer(communicator, **options):
    sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}
    return switchyard.Buffer(communicator, **(sizes | options))


def on_ranks(body, size=ranks):
    """body(buffer, rank) on every rank."""

    def run(communicator):
        with make_buffer(communicator) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(size, run)


def test_results_are_kept_and_shared():
    inputs = all_inputs()

    def body(buffer, rank):
        result = buffer.dispatch(inputs[rank].x, inputs[rank].topk_idx)
        assert result.x is result.x and result.topk_weights is None
        used = buffer.heap_bytes_used
        x = result.x
        buffer.communicator.barrier()
        del result
        assert buffer.heap_bytes_used == used, "x keeps the block"
        del x
        assert buffer.heap_bytes_used < used or used == 0
        assert buffer.heap_bytes_peak >= used

    on_ranks(body)


def test_numpy_arrays_give_numpy_arrays():
    inputs = all_inputs()

    def body(buffer, rank):
        mine = inputs[rank]
        x = mine.x.float().numpy().astype(ml_dtypes.bfloat16)
        x.flags.writeable = False
        result = buffer.dispatch(x, mine.topk_idx.numpy(), mine.topk_weights.numpy())
        out = numpy.zeros((len(x), hidden), ml_dtypes.bfloat16)
        assert buffer.combine(result.x, result.handle, out=out).x is out
        same = buffer.combine(result.x, result.handle).x
        assert isinstance(same, numpy.ndarray) and same.dtype == ml_dtypes.bfloat16
        assert (same.view(numpy.uint16) == out.view(numpy.uint16)).all()
        return result.x, result.topk_idx

    for rank, (x, ids) in enumerate(on_ranks(body)):
        expected = reference.flat(inputs, rank, experts)
        assert (x.astype(numpy.float32) == expected.x.float().numpy()).all()
        assert (ids == expected.topk_idx.numpy()).all()


def test_any_dlpack_producer_is_accepted():
    inputs = all_inputs()

    def body(buffer, rank):
        result = buffer.dispatch(OnlyDlpack(inputs[rank].x), OnlyDlpack(inputs[rank].topk_idx))
        return result.x

    for rank, x in enumerate(on_ranks(body)):
        expected = reference.flat(inputs, rank, experts).x
        assert (x.astype(numpy.float32) == expected.float().numpy()).all()


class FreshCopies(OnlyDlpack):
    """Exports a new copy each time, which nobody but the capsule keeps; once that goes, it is filled with others."""

    def __dlpack__(self, **options):
        copy = self.tensor.numpy().copy()
        weakref.finalize(copy, ctypes.memset, copy.ctypes.data, 0x55, copy.nbytes)
        return copy.__dlpack__(**options)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_dlpack_hands_out_lives_as_long_as_the_call(asynchronous):
    inputs = all_inputs(torch.float32)

    def body(buffer, rank):
        mine = inputs[rank]
        given = FreshCopies(mine.x), FreshCopies(mine.topk_idx), FreshCopies(mine.topk_weights)
        if not asynchronous:
            return buffer.dispatch(*given)
        if rank == 0:
            buffer.communicator.barrier()
        pending = buffer.dispatch_async(*given)
        if rank != 0:
            buffer.communicator.barrier()  # the calls of the others are under way by now
        return pending.get()

    for rank, result in enumerate(on_ranks(body)):
        expected = reference.flat(inputs, rank, experts)
        assert (result.x == expected.x.numpy()).all() and (result.topk_idx == expected.topk_idx.numpy()).all()
        assert (result.topk_weights == expected.topk_weights.numpy()).all()


def test_tensors_of_derived_classes():
    class Parameter(torch.nn.Parameter):
        pass

    class Array(numpy.ndarray):
        pass

    assert framework_of(Parameter) == framework_of(torch.Tensor) == "torch" and framework_of(Array) == "numpy"
    mine = all_inputs(torch.bfloat16)[0]

    def body(communicator):
        sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}
        with switchyard.LowLatencyBuffer(communicator, **sizes) as buffer:
            received = buffer.dispatch(Parameter(mine.x, requires_grad=False), mine.topk_idx)
            rows = torch.zeros(experts, tokens, hidden, dtype=torch.bfloat16)
            out = buffer.combine(Parameter(rows, requires_grad=False), received.handle)
            assert isinstance(out, torch.Tensor) and out.shape == mine.x.shape and out.abs().sum() == 0
        with make_buffer(communicator) as buffer:
            result = buffer.dispatch(mine.x.float().numpy().view(Array), mine.topk_idx.numpy())
            assert isinstance(result.x, numpy.ndarray)

    as_threads(1, body)


def test_results_do_not_keep_the_inputs():
    def body(buffer, rank):
        x, ids = torch.ones(4, hidden), torch.zeros(4, top_k, dtype=torch.int64)
        gone = weakref.ref(x)
        result = buffer.dispatch(x, ids)
        back = buffer.combine(result.x, result.handle)
        del x
        assert gone() is None and back.x.shape == (4, hidden)

    on_ranks(body, size=1)


def test_a_call_under_way_shows_what_is_known():
    inputs = all_inputs()

    def body(buffer, rank):
        mine = inputs[rank]
        out = torch.empty(len(mine.x), hidden, dtype=mine.x.dtype)
        if rank != 0:
            buffer.communicator.barrier()
        pending = buffer.dispatch_async(mine.x, mine.topk_idx)
        if rank == 0:  # the peers have not come
            early = pending.early()
            assert early.x is None and early.topk_idx is None and early.tokens_per_expert == []
            assert isinstance(early.handle, switchyard.Handle)
            buffer.communicator.barrier()
        result = pending.get()
        assert torch.equal(pending.early().x, result.x)
        if rank != 0:
            buffer.communicator.barrier()
        pending = buffer.combine_async(result.x, result.handle, out=out)
        if rank == 0:
            early = pending.early()
            assert early.x is out and early.topk_weights is None
            buffer.communicator.barrier()
        assert pending.event.wait(timeout=numpy.inf) and pending.event.wait(timeout=1e300)
        assert pending.early().x is pending.get().x is out

    on_ranks(body)


def test_a_heap_tensor_does_not_promise_what_it_cannot_do():
    def body(buffer, rank):
        result = buffer.dispatch(torch.ones(4, hidden), torch.zeros(4, top_k, dtype=torch.int64))
        tensor = result.handle.source_tokens
        with pytest.raises(BufferError, match="copy: expected None or False, seen True"):
            numpy.from_dlpack(tensor, copy=True)
        with pytest.raises(BufferError, match="dl_device: expected the tensor's own"):
            tensor.__dlpack__(dl_device=(2, 0))
        same = numpy.from_dlpack(tensor, copy=False)
        assert (same == torch.from_dlpack(tensor).numpy()).all()
        tensor.__dlpack__(stream=None, max_version=(1, 0), dl_device=tensor.__dlpack_device__(), copy=None)

    on_ranks(body, size=1)


def test_waits_that_run_out():
    def body(buffer, rank):
        if rank == 0:
            pending = buffer.dispatch_async(torch.ones(4, hidden), torch.zeros(4, top_k, dtype=torch.int64))
            for none in (0.0, -1.0, -numpy.inf, 0.01):
                assert not pending.event.wait(timeout=none)
            buffer.communicator.barrier()
        else:
            buffer.communicator.barrier()
            buffer.dispatch(torch.ones(4, hidden), torch.zeros(4, top_k, dtype=torch.int64))

    on_ranks(body, size=2)


def test_a_handle_shows_source_tokens_as_long_as_rows_live():
    inputs = all_inputs()

    def body(buffer, rank):
        result = buffer.dispatch(inputs[rank].x, inputs[rank].topk_idx)
        handle, x = result.handle, result.x
        del result
        seen = torch.from_dlpack(handle.source_tokens).clone()
        assert torch.equal(seen, reference.flat(inputs, rank, experts).source_token)
        del x
        assert handle.source_tokens is None

    on_ranks(body)


def test_allocate_and_properties():
    def body(buffer, rank):
        assert buffer.allocate(torch.bfloat16, (3, hidden)).shape == (3, hidden)
        assert buffer.allocate("float32", (3,)).dtype == numpy.float32
        assert buffer.allocate(ml_dtypes.float8_e4m3fn, (2, 2, 2)).dtype == ml_dtypes.float8_e4m3fn
        assert buffer.engine == "cpu" and buffer.cuda_stream == 0 and buffer.phases() == {}
        assert buffer.num_local_experts == len(reference.experts_of(rank, experts, ranks))
        buffer.synchronize()
        buffer.reset()

    on_ranks(body)


def test_what_is_printed():
    def body(communicator):
        buffer = make_buffer(communicator)
        slots = switchyard.LowLatencyBuffer(communicator, max_tokens=2, hidden=8, num_experts=ranks, top_k=1)
        alive = repr(communicator), repr(buffer), repr(slots)
        for each in (buffer, slots, communicator):
            each.destroy()
        return alive, (repr(communicator), repr(buffer), repr(slots))

    for rank, (alive, destroyed) in enumerate(as_threads(ranks, body)):
        job = f"Communicator(rank={rank}, size={ranks})"
        assert alive == (
            job,
            f"Buffer({job}, engine='cpu', max_tokens={tokens}, hidden={hidden}, num_experts={experts}, top_k={top_k})",
            f"LowLatencyBuffer({job}, engine='cpu', max_tokens=2, hidden=8, num_experts={ranks}, top_k=1)",
        )
        assert destroyed == ("Communicator(destroyed)", "Buffer(destroyed)", "LowLatencyBuffer(destroyed)")


def test_all_gather_and_barrier():
    def body(communicator):
        communicator.barrier()
        return communicator.rank, communicator.size, communicator.all_gather(bytes([communicator.rank] * 3))

    for rank, (who, size, gathered) in enumerate(as_threads(ranks, body)):
        assert (who, size, gathered) == (rank, ranks, [bytes([r] * 3) for r in range(ranks)])
