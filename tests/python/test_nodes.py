"""Jobs of several nodes: threads that play them, and two network namespaces with a cable between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import switchyard
from ranks import as_threads

program = """
import os, sys
import torch.distributed as dist
import switchyard

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
    sizes = dict(max_tokens=8, hidden=64, num_experts=8, top_k=2, engine="cpu")
    try:
        switchyard.Buffer(communicator, **sizes)
        raise SystemExit("a buffer over nodes was made")
    except switchyard.Unsupported as error:
        assert "seen 2 nodes" in str(error), error
    communicator.barrier()
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


def test_a_buffer_over_nodes_is_refused():
    store = switchyard.Store()

    def body(communicator: switchyard.Communicator) -> None:
        name = str(communicator.rank)
        with switchyard.Communicator.join(store, rank=communicator.rank, size=2, node=name, timeout=20) as nodes:
            with pytest.raises(switchyard.Unsupported, match="on one node so far, seen 2 nodes"):
                switchyard.Buffer(nodes, max_tokens=8, hidden=64, num_experts=8, top_k=2, engine="cpu")

    as_threads(2, body)
