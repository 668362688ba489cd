"""Times of calls, for benchmarks.

A process that has used CUDA measures by CUDA events, and any other by the host's clock.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import Any, Callable, Iterator

import numpy as np
import torch
import torch.distributed as dist
from switchyard import InvalidArgument

Function = Callable[[], Any]

_l2_bytes = 256_000_000


def flush_l2_cache(enabled: bool = True) -> None:
    """Writes 256 MB of GPU memory, so that nothing else is left in the GPU's cache. No effect without CUDA."""
    if enabled and torch.cuda.is_initialized():
        torch.zeros(_l2_bytes // 4, dtype=torch.int32, device="cuda")


def bench(
    fn: Function, num_warmups: int = 50, num_tests: int = 50, post_fn: Function | None = None, flush_l2: bool = True
) -> tuple[float, float, float]:
    """Times a function.

    Args:
        fn: the function.
        num_warmups, num_tests: how often it runs without, and with, the clock. The first of several tests is left out.
        post_fn: is called after each test, outside of its time.
        flush_l2: whether to call flush_l2_cache before each test.

    Returns:
        The average, the least and the longest time, in seconds.
    """
    _synchronize()
    for _ in range(num_warmups):
        fn()
    tests = range(num_tests)
    times = _times(fn, tests, before=lambda: flush_l2_cache(flush_l2), after=post_fn or _nothing)
    kept = np.array(times[1:] or times)
    return float(kept.mean()), float(kept.min()), float(kept.max())


def bench_kineto(
    fn: Function,
    kernel_names: str | tuple[str, ...],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    barrier_comm_profiling: bool = False,
    num_kernels_per_period: int = 1,
    barrier: Function | None = None,
) -> Any:
    """Returns the average time of fn, in seconds, wherever DeepEP's returns the time of one kernel within it.

    Switchyard has no kernels of those names. So a name stands for the whole function: for a function that calls several
    things the results are larger than DeepEP's, and equal for all names. Measure parts by separate functions.

    Args:
        fn: the function. It runs once before the clock starts.
        kernel_names: one name or a tuple of names.
        num_tests: how often it runs with the clock.
        suppress_kineto_output: whether to discard what is printed meanwhile.
        trace_path: a file for a Chrome trace of one more run; None: no trace.
        flush_l2: whether to call flush_l2_cache before each test.
        barrier_comm_profiling: whether ranks meet before each test, by `barrier` (None: an all_reduce). The environment
            variable EP_DISABLE_BARRIER_PROFILING=1 turns it off.
        num_kernels_per_period: more than 1: a list of as many times replaces each time.

    Returns:
        A time for one name, a list of times for a tuple. With EP_USE_NVIDIA_TOOLS=1 nothing runs, and times are 1.
    """
    names = (kernel_names,) if isinstance(kernel_names, str) else kernel_names
    if not isinstance(names, tuple):
        raise InvalidArgument(f"kernel_names: expected a str or a tuple, seen {type(names).__name__}")
    meets = barrier_comm_profiling and os.environ.get("EP_DISABLE_BARRIER_PROFILING", "0") == "0"
    meet = (barrier or _all_reduce) if meets else _nothing

    def before() -> None:
        flush_l2_cache(flush_l2)
        meet()

    seconds: Any = 1.0
    if os.environ.get("EP_USE_NVIDIA_TOOLS", "0") == "0":
        with suppress_stdout_stderr() if suppress_kineto_output else empty_suppress():
            fn()
            seconds = float(np.mean(_times(fn, range(num_tests), before, _nothing)))
            if trace_path is not None:
                _trace(fn, trace_path)
        if num_kernels_per_period > 1:
            seconds = [seconds] * num_kernels_per_period
    return seconds if isinstance(kernel_names, str) else [seconds] * len(names)


# ---- parts ----


def _times(fn: Function, tests: range, before: Function, after: Function) -> list[float]:
    """Returns the seconds that each test took."""
    timed = _by_events if torch.cuda.is_initialized() else _by_clock
    return timed(fn, tests, before, after)


def _by_clock(fn: Function, tests: range, before: Function, after: Function) -> list[float]:
    times = []
    for _ in tests:
        before()
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
        after()
    return times


def _by_events(fn: Function, tests: range, before: Function, after: Function) -> list[float]:
    """The host does not wait between tests, unless fn does."""
    spans = []
    for _ in tests:
        before()
        span = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        span[0].record()
        fn()
        span[1].record()
        spans.append(span)
        after()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in spans]


def _trace(fn: Function, path: str) -> None:
    with torch.profiler.profile() as profiler:
        fn()
        _synchronize()
    profiler.export_chrome_trace(path)


def _all_reduce() -> None:
    dist.all_reduce(torch.ones(1, dtype=torch.float32))


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _nothing() -> None:
    pass


# ---- output ----

empty_suppress = nullcontext
"""A context that does nothing, where suppress_stdout_stderr is not wanted."""


@contextmanager
def suppress_stdout_stderr() -> Iterator[None]:
    """Discards what this process prints meanwhile, through Python or not."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)
            yield
    finally:
        for descriptor, copy in zip((1, 2), kept):
            os.dup2(copy, descriptor)
            os.close(copy)
