"""A rank that decodes through deep_ep, for the bodies and clients of the low-latency mode."""

from __future__ import annotations

from typing import Any

import deep_ep
import torch
from devices import device, here, same
from low_latency_reference import Job, check_received, dequantised, outputs_of, scales_of_exponents, sums

Nobody: frozenset[int] = frozenset()


class Decoder:
    """A rank that decodes through deep_ep."""

    def __init__(self, buffer: deep_ep.Buffer, job: Job) -> None:
        self.buffer, self.job, self.rank = buffer, job, buffer.rank

    @classmethod
    def of(cls, group: Any, job: Job | None = None, **options: Any) -> Decoder:
        job = job or Job(group.size())
        hint = deep_ep.Buffer.get_low_latency_rdma_size_hint(job.max_tokens, job.hidden, job.ranks, job.experts)
        assert hint > 0
        buffer = deep_ep.Buffer(
            group=group,
            num_nvl_bytes=0,
            num_rdma_bytes=hint,
            low_latency_mode=True,
            num_qps_per_rank=max(1, job.experts // job.ranks),
            explicitly_destroy=True,
            **options,
        )
        return cls(buffer, job)

    def inputs(self, step: int = 0) -> Any:
        return here(self.job.inputs(self.rank, step))

    def dispatch(self, mine: Any, hooks: bool = False, **options: Any) -> Any:
        """Dispatches in bfloat16, unless options say otherwise."""
        return self.buffer.low_latency_dispatch(
            mine.x,
            mine.topk_idx,
            self.job.max_tokens,
            self.job.experts,
            **({"use_fp8": False, "return_recv_hook": hooks} | options),
        )

    def check_received(self, sent: Any, step: int = 0, **options: Any) -> None:
        check_received(self.job, self.rank, as_received(sent), step=step, **options)

    def outputs(self, sent: Any) -> torch.Tensor:
        """Returns what this rank's experts make of a dispatch."""
        return here(outputs_of(rows_of(sent[0], self.job), self.rank, self.job))

    def combine(self, mine: Any, sent: Any, made: Any = None, hooks: bool = False, **options: Any) -> Any:
        return self.buffer.low_latency_combine(
            self.outputs(sent) if made is None else made,
            mine.topk_idx,
            mine.topk_weights,
            sent[2],
            return_recv_hook=hooks,
            **options,
        )

    def check_sums(self, back: torch.Tensor, step: int = 0, missing: frozenset[int] = Nobody) -> None:
        same(back, sums(self.job, self.rank, step=step, missing=missing))

    def check_sums_of_fp8(self, back: torch.Tensor, step: int = 0, missing: frozenset[int] = Nobody) -> None:
        """The terms of a token may cancel one another: the error is that of the terms."""
        expected = sums(self.job, self.rank, step=step, missing=missing)
        torch.testing.assert_close(back.cpu().float(), expected.float(), rtol=0.07, atol=0.6)

    def step(self, step: int, hooks: bool = False, zero_copy: bool = False, logfmt: bool = False) -> Any:
        """Makes a decoding step in bfloat16. Returns the handle, which alone lives on."""
        mine = self.inputs(step)
        sent = self.dispatch(mine, hooks)
        assert (sent[4] is not None) == hooks and sent[3].event is None
        if hooks:
            sent[4]()
        check_handle(self.job, sent[2])
        self.check_received(sent, step)
        made = self.outputs(sent)
        if zero_copy:
            self.buffer.get_next_low_latency_combine_buffer(sent[2])[:, :, :] = made
        out = torch.empty_like(mine.x) if step % 2 else None
        back, event, hook = self.combine(mine, sent, made, hooks, use_logfmt=logfmt, zero_copy=zero_copy, out=out)
        if hooks:
            hook()
        assert event.event is None and (out is None or back is out)
        if logfmt:
            expected = sums(self.job, self.rank, step=step).float()
            torch.testing.assert_close(back.cpu().float(), expected, rtol=0.1, atol=0.1)
        else:
            self.check_sums(back, step)
        return sent[2]

    def step_without(self, missing: frozenset[int]) -> None:
        """Makes step 1, in which ranks are missing."""
        mine = self.inputs(1)
        sent = self.dispatch(mine)
        self.check_received(sent, 1, missing=missing)
        self.check_sums(self.combine(mine, sent)[0], 1, missing)

    def masks(self) -> list[int]:
        status = here(torch.full((self.job.ranks,), 7, dtype=torch.int32))
        self.buffer.low_latency_query_mask_buffer(status)
        return status.tolist()


def as_received(sent: tuple[Any, ...]) -> tuple[Any, Any, Any, Any, Any]:
    """Returns the result of a dispatch as low_latency_reference.check_received takes it."""
    recv_x, counts, handle = sent[:3]
    x, scales = recv_x if isinstance(recv_x, tuple) else (recv_x, None)
    assert x.device == device()
    return x.cpu(), None if scales is None else scales.cpu(), counts.cpu(), handle[0].cpu(), handle[1].cpu()


def rows_of(recv_x: Any, job: Job) -> torch.Tensor:
    """Returns [L, M*R, H] on the CPU: the rows that experts compute on."""
    if not isinstance(recv_x, tuple):
        return recv_x.cpu()
    x, scales = recv_x
    wide = []
    for rows, theirs in zip(x.cpu(), scales.cpu()):
        own = scales_of_exponents(theirs, job.hidden // 128) if theirs.dtype == torch.int32 else theirs
        wide.append(dequantised(rows, own))
    return torch.stack(wide)


def check_handle(job: Job, handle: Any) -> None:
    local = job.experts // job.ranks
    source, ranges, *sizes = handle
    assert source.shape == (local, job.max_tokens * job.ranks) and source.dtype == torch.int32
    assert ranges.shape == (local, job.ranks) and ranges.dtype == torch.int64
    assert sizes == [job.max_tokens, job.hidden, job.experts] and len(handle) == 5
