"""Wrong calls, as ranks of a group make them: what they hear, and that the buffer goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Callable

import switchyard
import torch
import torch.distributed as dist
from device_buffer import Job, experts, hidden, tokens, top_k
from device_buffer import check_received as check_rows
from devices import device, here, on_gpu, same
from low_latency_clients import make_buffer, step_of
from low_latency_reference import Job as LowLatencyJob


def refused(kind: type[BaseException], text: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        assert text in str(error), f"expected {text!r} in: {error}"
        return
    raise AssertionError(f"expected {kind.__name__} with {text!r}")


def mixed_devices(group: Any) -> None:
    """One rank's tensor lies elsewhere; all ranks hear of it."""
    if not on_gpu():
        return
    job = Job(group)
    mine, there = job.mine, job.inputs[job.rank]
    wrong = job.rank == 0
    text = "expected a tensor on device cuda, seen cpu"

    def dispatch(**options: Any) -> Any:
        return job.buffer.dispatch(mine.x, there.topk_idx if wrong else mine.topk_idx, **options)

    refused(switchyard.InvalidArgument, "topk_idx: " + text, dispatch)
    refused(switchyard.InvalidArgument, "x: " + text, lambda: job.buffer.dispatch(there.x, mine.topk_idx))
    result = job.buffer.dispatch(mine.x, mine.topk_idx, mine.topk_weights)
    check_rows(job, result)
    rows = result.x.cpu() if wrong else result.x
    refused(switchyard.InvalidArgument, "x: " + text, lambda: job.buffer.combine(rows, result.handle))
    out = torch.empty_like(there.x) if wrong else None
    refused(switchyard.InvalidArgument, "out: " + text, lambda: job.buffer.combine(result.x, result.handle, out=out))
    same(job.buffer.combine(result.x, result.handle).x, job.sums())
    job.buffer.destroy()


def wrong_gpu(group: Any) -> None:
    if not on_gpu():
        return
    communicator = switchyard.Communicator.from_torch(group)
    sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}
    refused(
        switchyard.InvalidArgument, "device: expected 0..", lambda: switchyard.Buffer(communicator, device=99, **sizes)
    )
    if torch.cuda.device_count() < 2:
        return
    job = Job(group, device=0)
    there = job.mine.x.to("cuda:1")
    refused(
        switchyard.InvalidArgument, "memory of GPU 0, seen GPU 1", lambda: job.buffer.dispatch(there, job.mine.topk_idx)
    )
    with torch.cuda.device(1), switchyard.Buffer(communicator, **sizes) as buffer:
        assert buffer.allocate(torch.float32, [4]).device.index == 1


def ids_out_of_range(group: Any) -> None:
    job = Job(group)
    ids = job.mine.topk_idx.clone()
    if job.rank == 0:
        ids[3, 1] = experts
    refused(
        switchyard.InvalidArgument,
        f"topk_idx[3, 1]: expected -1 or 0..{experts - 1}, seen {experts}",
        lambda: job.buffer.dispatch(job.mine.x, ids),
    )
    check_rows(job, job.buffer.dispatch(job.mine.x, job.mine.topk_idx, job.mine.topk_weights))
    job.buffer.destroy()


def low_latency_on_one_rank_only(group: Any) -> None:
    """Nothing was sent, and the peers wait for the corrected call."""
    job = LowLatencyJob(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    step_of(buffer, job, 0, hooks=False, zero_copy=False, logfmt=False)
    mine, m, e = here(job.inputs(buffer.rank, 0)), job.max_tokens, job.experts

    def dispatch(x: Any = mine.x, ids: Any = mine.topk_idx) -> Any:
        return buffer.low_latency_dispatch(x, ids, m, e, use_fp8=False)

    if buffer.rank == 0:
        invalid = switchyard.InvalidArgument
        refused(invalid, "topk_idx", lambda: dispatch(ids=mine.topk_idx.float()))
        refused(invalid, "bfloat16", lambda: dispatch(x=mine.x.float()))
        if on_gpu():
            refused(invalid, "topk_idx: expected a tensor on device cuda", lambda: dispatch(ids=mine.topk_idx.cpu()))
    step_of(buffer, job, 1, hooks=True, zero_copy=False, logfmt=False)
    buffer.destroy()


_program = """
import sys, torch, deep_ep
class Alone:
    Get_rank = lambda self: 0
    Get_size = lambda self: 1
    allgather = lambda self, mine: [mine]
device = sys.argv[1]
buffer = deep_ep.Buffer(comm=Alone(), num_nvl_bytes=1 << 22)
x = torch.ones(64, 256, dtype=torch.bfloat16, device=device)
ids = torch.arange(128, device=device).view(64, 2) % 4
_, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(ids, 4)
if device != "cpu":
    torch.cuda._sleep(200_000_000)
kept = buffer.dispatch(x, topk_idx=ids, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert,
                       num_worst_tokens=64, async_finish=True)
"""


def left_at_exit(group: Any) -> None:
    """A program that ends with work under way ends as others do."""
    if group.rank() != 0:
        return
    command = [sys.executable, "-c", _program, str(device())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0 and not ended.stderr.strip(), f"exit {ended.returncode}: {ended.stderr[-1500:]}"
