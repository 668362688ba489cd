"""The drop-in's low-latency calls, as processes of a gloo group; bad input as threads."""

import bodies.low_latency_masks
import deep_ep
import pytest
import switchyard
import torch
from low_latency_reference import Job
from ranks import as_processes, with_comm


def test_a_peer_that_is_late_is_masked():
    as_processes(4, bodies.low_latency_masks.late_peer)


def test_a_peer_that_is_gone_before_the_first_call_is_masked():
    as_processes(4, bodies.low_latency_masks.lost_peer)


def test_a_peer_that_never_comes_is_masked():
    as_processes(3, bodies.low_latency_masks.peer_that_never_comes)


def refused(kind, text, call):
    with pytest.raises(kind, match=text):
        call()


def test_bad_input_is_refused_and_the_buffer_goes_on():
    job = Job(2)

    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, explicitly_destroy=True)
        mine = job.inputs(comm.rank, 0)
        m, e, invalid = job.max_tokens, job.experts, switchyard.InvalidArgument

        def dispatch(x=mine.x, ids=mine.topk_idx, **options):
            return buffer.low_latency_dispatch(x, ids, m, e, **options)

        recv_x, _, handle, _, _ = dispatch(use_fp8=False, use_ue8m0=True)  # flags of scales mean nothing without FP8
        # Only one rank errs: nothing was sent, and its peer is none the wiser.
        if comm.rank == 0:
            refused(invalid, "bfloat16", lambda: dispatch(mine.x.float()))
            refused(invalid, "round_scale", lambda: dispatch(use_ue8m0=True))
            refused(invalid, "async_finish", lambda: dispatch(async_finish=True, return_recv_hook=True))
            refused(TypeError, "x: expected", lambda: dispatch([1]))
            elsewhere = mine.x.to("meta")
            refused(invalid, "expected it on cpu as in calls before, seen it on meta", lambda: dispatch(elsewhere))
            refused(invalid, "topk_idx", lambda: dispatch(ids=mine.topk_idx.float()))
            twice = mine.x.repeat(2, 1), mine.topk_idx.repeat(2, 1)
            refused(invalid, "num_max_dispatch_tokens_per_rank = 12, seen 24", lambda: dispatch(*twice))

        def combine(x=recv_x, ids=mine.topk_idx, the=handle, **options):
            return buffer.low_latency_combine(x, ids, mine.topk_weights, the, **options)

        if comm.rank == 0:
            refused(invalid, "zero_copy", lambda: combine(zero_copy=True, use_logfmt=True))
            refused(TypeError, "handle", lambda: combine(the=handle.dispatch))
            refused(TypeError, "rank", lambda: buffer.low_latency_update_mask_buffer(rank=1))
            refused(invalid, "those of the dispatch", lambda: combine(ids=torch.full_like(mine.topk_idx, -1)))
            refused(invalid, "x:", lambda: combine(recv_x[:, 1:]))
            refused(invalid, "enable_shrink", lambda: buffer.low_latency_update_mask_buffer(1, True))
            inside = buffer.get_next_low_latency_combine_buffer(handle)
            refused(invalid, "combine_buffer with use_logfmt", lambda: combine(inside, use_logfmt=True))
            del inside
        combine()
        buffer.destroy()
        refused(switchyard.Unusable, "destroyed", lambda: dispatch(use_fp8=False))

    with_comm(2, body)


def test_the_mode_must_have_been_asked_for():
    def body(comm):
        buffer = deep_ep.Buffer(comm=comm)
        mine = Job(1).inputs(0)
        refused(
            switchyard.InvalidArgument,
            "low_latency_mode=True",
            lambda: buffer.low_latency_dispatch(mine.x, mine.topk_idx, 12, 8),
        )

    with_comm(1, body)
