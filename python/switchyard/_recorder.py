"""What happened in a run, step by step, for `switchyard report`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from ._buffer import Buffer, local_experts
from ._errors import InvalidArgument
from ._low_latency import LowLatencyBuffer
from ._recorded_points import Points
from ._text_file import replace_text

SCHEMA = "switchyard-record/1"


class Recorder:
    """Records who waited for whom, what travelled between ranks, and the load of each expert, while a job runs.

        recorder = switchyard.Recorder(buffer)
        for step in range(steps):
            ...                          # any number of dispatches and combines of this buffer
            recorder.step()
        recorder.save("run.json")        # then: switchyard report run.json -o run.html

    It reads counters that the engine keeps: a step takes some microseconds, and long runs keep their memory, since
    neighbouring steps are merged when there are more than `keep`. The buffer counts from here until `close()`.

    Calls of a LowLatencyBuffer count into tensors that they are given. So hand them on, in each call that is to count:

        received = buffer.dispatch(x, topk_idx, **recorder.dispatch_counters)
        y = buffer.combine(rows, received.handle, topk_weights=weights, **recorder.combine_counters)

    There what came from each rank is not counted by source, and the report has no bytes.

    Args:
        buffer: the Buffer, or LowLatencyBuffer.
        keep: the most points in time to keep, 2 at least.

    Raises:
        Unsupported: a Buffer of the CUDA engine on one node, which does not count yet.
    """

    def __init__(self, buffer: Buffer | LowLatencyBuffer, *, keep: int = 512) -> None:
        if keep < 2:
            raise InvalidArgument(f"keep: expected at least 2 points in time, seen {keep}")
        self._buffer = buffer
        self.dispatch_counters: dict[str, Any] = {}
        self.combine_counters: dict[str, Any] = {}
        if isinstance(buffer, LowLatencyBuffer):
            self._make_counters(buffer)
        else:
            buffer._core.count_calls(True)
        self._began = time.monotonic()
        self._points = Points(keep, self._now())

    def step(self) -> None:
        """Ends a step. Not collective."""
        self._points.add(time.monotonic() - self._began, self._now())

    def close(self) -> None:
        """Lets the buffer count no more. What was recorded can still be saved."""
        if not isinstance(self._buffer, LowLatencyBuffer):
            self._buffer._core.count_calls(False)

    def save(self, path: str | Path) -> None:
        """Writes what all ranks have recorded into one file, on rank 0. Collective."""
        text = json.dumps(self._part())
        parts = self._buffer.communicator.all_gather(text.encode())
        if self._buffer.communicator.rank == 0:
            replace_text(path, json.dumps({"schema": SCHEMA, "parts": [json.loads(part) for part in parts]}) + "\n")

    def save_rank(self, path: str | Path) -> None:
        """Writes what this rank has recorded: the report takes the files of all ranks together. Not collective."""
        replace_text(path, json.dumps({"schema": SCHEMA, "parts": [self._part()]}) + "\n")

    def _make_counters(self, buffer: LowLatencyBuffer) -> None:
        ranks = buffer.communicator.size
        experts = local_experts(buffer.num_experts, buffer.communicator.rank, ranks)
        self.dispatch_counters = {
            "received_per_expert": _zeros(buffer, experts, "int32"),
            "wait_ns_per_source": _zeros(buffer, ranks, "int64"),
        }
        self.combine_counters = {"wait_ns_per_source": _zeros(buffer, ranks, "int64")}

    def _now(self) -> dict[str, Any]:
        if not isinstance(self._buffer, LowLatencyBuffer):
            return self._buffer._core.call_counts()
        # On a GPU a copy is queued behind the calls so far, and nobody waits for it.
        copy = "clone" if self._buffer.engine == "cuda" else "copy"
        return {
            "expert_tokens": getattr(self.dispatch_counters["received_per_expert"], copy)(),
            "dispatch_wait_ns": getattr(self.dispatch_counters["wait_ns_per_source"], copy)(),
            "combine_wait_ns": getattr(self.combine_counters["wait_ns_per_source"], copy)(),
        }

    def _part(self) -> dict[str, Any]:
        buffer, communicator = self._buffer, self._buffer.communicator
        first = sum(local_experts(buffer.num_experts, rank, communicator.size) for rank in range(communicator.rank))
        return {
            "rank": communicator.rank,
            "ranks": communicator.size,
            "node_by_rank": list(communicator.node_by_rank),
            "mode": "latency" if isinstance(buffer, LowLatencyBuffer) else "throughput",
            "engine": buffer.engine,
            "hidden": buffer.hidden,
            "top_k": buffer.top_k,
            "experts": buffer.num_experts,
            "first_expert": first,
            **self._points.as_json(),
        }


def _zeros(buffer: LowLatencyBuffer, size: int, dtype: str) -> Any:
    if buffer.engine == "cpu":
        return np.zeros(size, dtype)
    import torch

    return torch.zeros(size, dtype=getattr(torch, dtype), device=f"cuda:{torch.cuda.current_device()}")
