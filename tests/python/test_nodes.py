"""Jobs of several nodes: threads that play them, and two network namespaces with a cable between them, on which ranks
are started by hand, by torchrun and by mpirun."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
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


@contextmanager
def two_namespaces(addresses: list[str]):
    """Names of two network namespaces, which have these addresses and a cable between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root, and `ip` of iproute2")
    names = [f"sypy{os.getpid()}n{node}" for node in range(2)]

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"-n {names[0]} link add eth0 type veth peer name eth0 netns {names[1]}")
        for name, address in zip(names, addresses):
            # Without nodad the kernel asks first whether somebody else has an IPv6 address.
            ip(f"-n {name} addr add " + (f"{address}/64 nodad" if ":" in address else f"{address}/24") + " dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


ipv4 = ["10.198.0.1", "10.198.0.2"]
ipv6 = ["fd00:198::1", "fd00:198::2"]


@pytest.fixture
def two_nodes():
    """Names of two network namespaces, and their addresses."""
    with two_namespaces(ipv4) as names:
        yield names, ipv4


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


here = Path(__file__).parent
settings = {"SWITCHYARD_TOKEN": "a secret of this test", "SWITCHYARD_ENGINE": "cpu", "OMP_NUM_THREADS": "1"}


def test_torchrun_over_ipv6():
    """One torchrun a node, as docs/cluster.md starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    meeting = ["--master-addr", ipv6[0], "--master-port", "29500"]
    environment = os.environ | settings | {"GLOO_SOCKET_IFNAME": "eth0"}
    with two_namespaces(ipv6) as names:
        started = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command, *meeting, "--node-rank", str(node)]
                + [str(here / "node_ranks.py"), "torch"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for node, name in enumerate(names)
        ]
        try:
            for process, wanted in zip(started, ("ok\n", "")):
                output, errors = process.communicate(timeout=100)
                assert (process.returncode, output) == (0, wanted), errors
        finally:
            for process in started:
                process.terminate()  # not killed: it ends its ranks first
                process.wait()


log_in_script = """#!/bin/sh
name=$1
shift
exec ip netns exec "$name" unshare --uts sh -c 'hostname "$0" && exec sh -c "$1"' "$name" "$*"
"""


def test_mpirun(two_nodes, tmp_path):
    """One mpirun for both nodes. In the place of ssh it has a script, which also gives hosts different names: Open MPI
    names shared memory after them."""
    names, addresses = two_nodes
    log_in = tmp_path / "log_in"
    log_in.write_text(log_in_script)
    log_in.chmod(0o700)
    command = ["ip", "netns", "exec", names[0], "mpirun", "--allow-run-as-root", "--timeout", "100"]
    command += ["-H", f"{names[0]}:2,{names[1]}:2", "--mca", "plm_rsh_agent", str(log_in)]
    for variable in ("SWITCHYARD_TOKEN", "SWITCHYARD_STORE", "MASTER_ADDR"):
        command += ["-x", variable]
    environment = os.environ | settings | {"SWITCHYARD_STORE": f"{addresses[0]}:29400", "MASTER_ADDR": addresses[0]}
    result = subprocess.run(
        [*command, sys.executable, str(here / "node_ranks.py"), "mpi"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=150,
    )
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr


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
