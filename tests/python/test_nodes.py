"""Jobs of several nodes: threads that play them, and two network namespaces with a cable between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import switchyard
import torch
from ranks import as_threads

program = """
import os, sys
import torch, torch.distributed as dist
import deep_ep, switchyard
from bodies import deep_ep as calls
from ranks import play_nodes

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
with switchyard.Communicator.from_torch() as communicator:
    assert (communicator.rank, communicator.size, communicator.num_nodes) == (rank, 4, 2), communicator
    assert communicator.node_by_rank == [0, 0, 1, 1]
    for round in range(5):
        mine = bytes([rank]) * (rank * 70000 + round)
        assert communicator.all_gather(mine) == [bytes([r]) * (r * 70000 + round) for r in range(4)]
    communicator.barrier()
with switchyard.Communicator.from_environment() as communicator:
    assert communicator.node_by_rank == [0, 0, 1, 1]
    communicator.barrier()
torch.set_num_threads(1)
play_nodes(rank, [0, 0, 1, 1])
del os.environ["SWITCHYARD_NODE"]  # nodes are found by themselves
calls.every_result(dist.group.WORLD)
dist.barrier()
print("ok", flush=True)
"""


@pytest.fixture
def two_nodes():
    """Names of two network namespaces, and their addresses."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root, and `ip` of iproute2")
    names = [f"sypy{os.getpid()}n{node}" for node in range(2)]
    addresses = ["10.198.0.1", "10.198.0.2"]

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"-n {names[0]} link add eth0 type veth peer name eth0 netns {names[1]}")
        for name, address in zip(names, addresses):
            ip(f"-n {name} addr add {address}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
        yield names, addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_torch_and_environment(two_nodes):
    names, addresses = two_nodes
    shared = os.environ | {
        "MASTER_ADDR": addresses[0],
        "MASTER_PORT": "29501",
        "WORLD_SIZE": "4",
        "GLOO_SOCKET_IFNAME": "eth0",
        "SWITCHYARD_TOKEN": "a secret of this test",
        "SWITCHYARD_ENGINE": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", names[rank // 2], sys.executable, "-c", program],
            env=shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(4)
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=100)
            assert process.returncode == 0 and output.endswith("ok\n"), output
    finally:
        for process in started:
            process.kill()


def test_threads_play_nodes():
    store = switchyard.Store()

    def body(communicator: switchyard.Communicator) -> list[int]:
        name = "even" if communicator.rank % 2 == 0 else "odd"
        with switchyard.Communicator.join(store, rank=communicator.rank, size=4, node=name, timeout=20) as nodes:
            assert nodes.num_nodes == 2
            return nodes.node_by_rank

    assert as_threads(4, body) == [[0, 1, 0, 1]] * 4


@pytest.mark.parametrize("node_of", ([0, 1, 0, 1], [0, 1, 1, 2, 2]), ids=str)
def test_buffers_of_threads(node_of):
    """Nodes need not consist of ranks one after the other."""
    sizes = {"hidden": 64, "experts": 11, "top_k": 3}
    everybody = [
        reference.make_inputs(rank, tokens=4 + 3 * rank, dtype=torch.bfloat16, **sizes) for rank in range(len(node_of))
    ]
    store = switchyard.Store()

    def body(communicator: switchyard.Communicator) -> None:
        rank, size = communicator.rank, len(node_of)
        mine, received = everybody[rank], [reference.flat(everybody, r, sizes["experts"]) for r in range(size)]
        with switchyard.Communicator.join(store, rank=rank, size=size, node=f"n{node_of[rank]}", timeout=20) as nodes:
            assert nodes.node_by_rank == node_of
            with switchyard.Buffer(nodes, max_tokens=32, hidden=64, num_experts=11, top_k=3) as buffer:
                result = buffer.dispatch(mine.x, mine.topk_idx, mine.topk_weights)
                assert torch.equal(result.x, received[rank].x)
                assert torch.equal(result.topk_idx, received[rank].topk_idx)
                seen = buffer.combine(result.x * (rank + 1), result.handle).x
                outputs = [each.x * (r + 1) for r, each in enumerate(received)]
                assert torch.equal(seen, reference.combined(outputs, received, rank, len(mine.x), node_of))

    as_threads(len(node_of), body)
