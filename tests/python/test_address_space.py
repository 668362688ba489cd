"""Processes that may not map as much memory as the machine has: batch systems set `ulimit -v`."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# How many bytes it may map beyond what it has mapped comes from the command line.
header = """
import resource, sys, threading
import deep_ep, switchyard, torch
from ranks import as_threads, with_comm
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
x, ids = torch.ones(8, 256).bfloat16(), torch.tensor([[0, 3]] * 8)
"""


def run(script, limit, **variables):
    environment = os.environ | {"SWITCHYARD_ENGINE": "cpu", "OMP_NUM_THREADS": "1"} | variables
    ended = subprocess.run(
        [sys.executable, "-c", header + textwrap.dedent(script), str(limit)],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


in_deep_ep = """
    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, explicitly_destroy=True)
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(ids, 4)
        rows, _, _, _, handle, _ = buffer.dispatch(
            x, num_tokens_per_rank=per_rank, num_tokens_per_expert=per_expert, is_token_in_rank=in_rank,
            topk_idx=ids, topk_weights=torch.ones(8, 2))
        assert torch.equal(buffer.combine(rows, handle)[0], 2 * x)
        buffer.destroy()

"""


goes_well = """
    with_comm(2, body)
    print("done")
"""

fails = """
    try:
        with_comm(2, body)
    except switchyard.OutOfMemory as error:
        assert isinstance(error, MemoryError) and "::" not in str(error), error
        print(error)
"""


@pytest.mark.parametrize("limit", [3 << 30, 6 << 30])
def test_deep_ep_takes_what_it_may(limit):
    assert run(in_deep_ep + goes_well, limit) == "done\n"


def test_switchyard_takes_what_it_may():
    script = """
        def body(communicator):
            with switchyard.Buffer(communicator, max_tokens=1 << 23, hidden=256, num_experts=4, top_k=2) as buffer:
                result = buffer.dispatch(x, ids)
                assert torch.equal(buffer.combine(result.x, result.handle).x, 2 * x)

        as_threads(2, body)
        print("done")
    """
    assert run(script, 3 << 30) == "done\n"


def test_the_environment_sets_the_size():
    """Where that is too much, or too little, the error names the variable."""
    limit = 3 << 30
    assert run(in_deep_ep + goes_well, limit, SWITCHYARD_HEAP_BYTES="1048576") == "done\n"
    error = run(in_deep_ep + fails, limit, SWITCHYARD_HEAP_BYTES=str(8 << 30))
    assert "mapping a segment of 8" in error and "ulimit -v" in error and "lower SWITCHYARD_HEAP_BYTES" in error
    error = run(in_deep_ep + fails, limit, SWITCHYARD_HEAP_BYTES="4096")
    assert "symmetric heap: expected" in error and "raise SWITCHYARD_HEAP_BYTES" in error
