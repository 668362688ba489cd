"""switchyard.LowLatencyBuffer. Ranks are threads; see bodies/low_latency_buffer.py, too."""

import gc

import ml_dtypes
import numpy as np
import pytest
import switchyard
import torch
from low_latency_reference import Job, check_received, outputs_of, sums
from ranks import as_threads

job = Job(3)


def on_ranks(body, the=job, **options):
    def run(communicator):
        with switchyard.LowLatencyBuffer(
            communicator,
            max_tokens=the.max_tokens,
            hidden=the.hidden,
            num_experts=the.experts,
            top_k=the.top_k,
            engine="cpu",
            timeout=20,
            **options,
        ) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(the.ranks, run)


def all_of(received):
    return received.x, received.scales, received.counts, received.source_token, received.ranges


def test_halves_with_hooks_and_outputs_in_place():
    def body(buffer, rank):
        for step in range(4):
            mine = job.inputs(rank, step)
            received, hook = buffer.send_dispatch(mine.x, mine.topk_idx)
            hook()
            hook()  # does nothing
            check_received(job, rank, all_of(received), step=step)
            place = buffer.outputs(received.handle, torch.bfloat16)
            place[:] = outputs_of(received.x, rank, job)
            assert received.handle.num_tokens == len(mine.x)
            out, hook = buffer.send_combine(place, received.handle, topk_weights=mine.topk_weights)
            hook()
            assert torch.equal(out, sums(job, rank, step=step))
            del received, place, hook

    on_ranks(body)


def test_opaque_payloads_and_numpy():
    def body(buffer, rank):
        mine = job.inputs(rank)
        payload = mine.x.view(torch.uint8).numpy()[:, :100]
        received = buffer.dispatch(payload, mine.topk_idx.numpy())
        assert isinstance(received.x, np.ndarray) and received.x.shape[2] == 100
        ranges = received.ranges
        for source in range(job.ranks):
            begin, count = int(ranges[0, source]) >> 32, int(ranges[0, source]) & 0xFFFFFFFF
            at = slice(begin, begin + count)
            theirs = job.inputs(source).x.view(torch.uint8).numpy()[:, :100]
            assert (received.x[0, at] == theirs[received.source_token[0, at]]).all()
        del received
        x = mine.x.float().numpy().astype(ml_dtypes.bfloat16)
        received = buffer.dispatch(x, mine.topk_idx.numpy(), cast="fp8_pow2")
        # Column-major scales keep their strides.
        assert received.scales.strides[1:] == (4, 4 * received.scales.shape[1])
        others = (received.counts, received.source_token, received.ranges)
        as_torch = [torch.from_numpy(np.array(each)) for each in others]
        rows = torch.from_numpy(np.array(received.x.view(np.uint8))).view(torch.float8_e4m3fn)
        scales = torch.from_numpy(np.array(received.scales))
        check_received(job, rank, (rows, scales, *as_torch), rounded=True)
        out = buffer.combine(np.zeros(received.x.shape, ml_dtypes.bfloat16), received.handle)
        assert out.shape == mine.x.shape and out.dtype == ml_dtypes.bfloat16 and not out.any()

    on_ranks(body)


def test_float32_rows_need_room_or_a_cast():
    def body(buffer, rank):
        mine = job.inputs(rank)
        with pytest.raises(switchyard.InvalidArgument, match="max_row_bytes"):
            buffer.dispatch(mine.x.float(), mine.topk_idx)
        check_received(job, rank, all_of(buffer.dispatch(mine.x.float(), mine.topk_idx, cast="fp8")))

    def with_room(buffer, rank):
        mine = job.inputs(rank)
        rows, *others = all_of(buffer.dispatch(mine.x.float(), mine.topk_idx))
        assert rows.dtype == torch.float32
        check_received(job, rank, (rows.to(job.dtype), *others))

    on_ranks(body)
    on_ranks(with_room, max_row_bytes=4 * job.hidden)


def test_counters_and_coding():
    def body(buffer, rank):
        mine = job.inputs(rank)
        counts = torch.zeros(buffer.num_local_experts, dtype=torch.int32)
        waits = torch.zeros(job.ranks, dtype=torch.int64)
        received = buffer.dispatch(mine.x, mine.topk_idx, received_per_expert=counts, wait_ns_per_source=waits)
        assert torch.equal(counts, received.counts) and (waits >= 0).all()
        out = torch.empty_like(mine.x)
        made = outputs_of(received.x, rank, job)
        back = buffer.combine(
            made, received.handle, topk_weights=mine.topk_weights, coding="logfmt10", out=out, wait_ns_per_source=waits
        )
        assert back is out
        torch.testing.assert_close(out.float(), sums(job, rank).float(), rtol=0.1, atol=0.1)

    on_ranks(body)


def test_results_that_are_held_are_not_overwritten():
    def body(buffer, rank):
        mine = job.inputs(rank)
        held = [buffer.dispatch(mine.x, mine.topk_idx).x for _ in range(2)]
        before = [each.clone() for each in held]
        try:
            held.append(buffer.dispatch(mine.x, mine.topk_idx).x)
            assert len({each.data_ptr() for each in held}) == 3
        except switchyard.InvalidArgument as error:  # memory of this kind does not grow
            assert "max_results: expected the result of 2 dispatches ago to be released" in str(error)
        assert all(torch.equal(now, then) for now, then in zip(held, before))
        held.clear()
        gc.collect()
        received = buffer.dispatch(mine.x, mine.topk_idx)
        check_received(job, rank, all_of(received))

    on_ranks(body)


def test_masks_and_reset():
    def body(buffer, rank):
        peers = [r for r in range(job.ranks) if r != rank]
        for peer in peers:
            buffer.mask(peer)
        assert buffer.masked() == [r != rank for r in range(job.ranks)]
        mine = job.inputs(rank)
        received = buffer.dispatch(mine.x, mine.topk_idx)
        check_received(job, rank, all_of(received), missing=frozenset(peers))
        with pytest.raises(switchyard.InvalidArgument, match="that of a peer"):
            buffer.mask(rank)
        buffer.communicator.barrier()
        buffer.reset()
        assert buffer.masked() == [False] * job.ranks
        with pytest.raises(switchyard.InvalidArgument, match="reset"):
            buffer.combine(received.x.clone(), received.handle)
        check_received(job, rank, all_of(buffer.dispatch(mine.x, mine.topk_idx)))

    on_ranks(body)


def test_a_late_peer_is_masked_or_raises():
    def body(communicator, mask_late_peers):
        the = Job(2)
        buffer = switchyard.LowLatencyBuffer(
            communicator,
            max_tokens=the.max_tokens,
            hidden=the.hidden,
            num_experts=the.experts,
            top_k=the.top_k,
            engine="cpu",
            timeout=0.3,
            mask_late_peers=mask_late_peers,
        )
        mine = the.inputs(communicator.rank)
        if communicator.rank == 1:
            pass  # does not come
        elif mask_late_peers:
            received = buffer.dispatch(mine.x, mine.topk_idx)
            check_received(the, 0, all_of(received), missing=frozenset({1}))
            assert buffer.masked() == [False, True]
        else:
            with pytest.raises(switchyard.Timeout) as caught:
                buffer.dispatch(mine.x, mine.topk_idx)
            assert caught.value.peer == 1
        communicator.barrier()
        buffer.destroy()

    for mask_late_peers in (False, True):
        as_threads(2, lambda communicator, late=mask_late_peers: body(communicator, late))


def test_bad_input():
    def body(buffer, rank):
        mine = job.inputs(rank)
        received, hook = buffer.send_dispatch(mine.x, mine.topk_idx)
        hook()
        with pytest.raises(TypeError, match="x: expected a tensor"):
            buffer.dispatch("rows", mine.topk_idx)
        with pytest.raises(switchyard.InvalidArgument, match="cast: expected 'none' or 'fp8'"):
            buffer.dispatch(mine.x, mine.topk_idx, cast="int4")
        with pytest.raises(TypeError, match="not a keyword argument"):
            buffer.dispatch(mine.x, mine.topk_idx, alignment=3)
        with pytest.raises(switchyard.InvalidArgument, match="hidden|dimension 1"):
            buffer.dispatch(mine.x[:, 1:], mine.topk_idx)
        with pytest.raises(TypeError, match="handle"):
            buffer.combine(received.x, None)
        with pytest.raises(switchyard.InvalidArgument, match="dtype"):
            buffer.outputs(received.handle, torch.float32)
        with pytest.raises(switchyard.InvalidArgument, match="contiguous"):
            buffer.combine(received.x.transpose(1, 2).contiguous().transpose(1, 2), received.handle)
        back, hook = buffer.send_combine(received.x, received.handle)
        buffer.communicator.barrier()
        buffer.destroy()
        with pytest.raises(switchyard.Unusable, match="destroyed"):
            hook()
        with pytest.raises(switchyard.Unusable, match="destroyed"):
            buffer.dispatch(mine.x, mine.topk_idx)
        assert received.counts.sum() >= 0  # stays valid

    on_ranks(body)
