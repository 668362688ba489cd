"""Wrong calls that ranks of a group make: the errors that they get, and that the buffer goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import switchyard
import torch
from bodies.buffer import Job, check_received, experts, hidden, tokens, top_k
from devices import device, same

invalid = switchyard.InvalidArgument


def mixed_devices(group: Any) -> None:
    """A tensor of one rank lies elsewhere, and all ranks learn of it. Needs GPUs."""
    job = Job(group)
    mine, there = job.mine, job.own
    wrong = job.rank == 0
    text = "expected a tensor on device cuda, seen cpu"
    with pytest.raises(invalid, match="topk_idx: " + text):
        job.buffer.dispatch(mine.x, there.topk_idx if wrong else mine.topk_idx)
    with pytest.raises(invalid, match="x: " + text):
        job.buffer.dispatch(there.x, mine.topk_idx)
    result = job.buffer.dispatch(mine.x, mine.topk_idx, mine.topk_weights)
    check_received(job, result)
    with pytest.raises(invalid, match="x: " + text):
        job.buffer.combine(result.x.cpu() if wrong else result.x, result.handle)
    with pytest.raises(invalid, match="out: " + text):
        job.buffer.combine(result.x, result.handle, out=torch.empty_like(there.x) if wrong else None)
    same(job.buffer.combine(result.x, result.handle).x, job.sums())
    job.buffer.destroy()


def wrong_gpu(group: Any) -> None:
    """Needs GPUs; with two of them a tensor lies on the wrong one."""
    communicator = switchyard.Communicator.from_torch(group)
    sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}
    with pytest.raises(invalid, match=r"device: expected 0\.\."):
        switchyard.Buffer(communicator, device=99, **sizes)
    if torch.cuda.device_count() < 2:
        return
    job = Job(group, device=0)
    with pytest.raises(invalid, match="memory of GPU 0, seen GPU 1"):
        job.buffer.dispatch(job.mine.x.to("cuda:1"), job.mine.topk_idx)
    with torch.cuda.device(1), switchyard.Buffer(communicator, **sizes) as buffer:
        assert buffer.allocate(torch.float32, [4]).device.index == 1


def ids_out_of_range(group: Any) -> None:
    job = Job(group)
    ids = job.mine.topk_idx.clone()
    if job.rank == 0:
        ids[3, 1] = experts
    with pytest.raises(invalid, match=rf"topk_idx\[3, 1\]: expected -1 or 0\.\.{experts - 1}, seen {experts}"):
        job.buffer.dispatch(job.mine.x, ids)
    check_received(job, job.buffer.dispatch(job.mine.x, job.mine.topk_idx, job.mine.topk_weights))
    job.buffer.destroy()


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
    """A program that ends while a call is under way ends as others do."""
    if group.rank() != 0:
        return
    command = [sys.executable, "-c", _program, str(device())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0 and not ended.stderr.strip(), f"exit {ended.returncode}: {ended.stderr[-1500:]}"
