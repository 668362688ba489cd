"""How each side of ./dev compare is started: on one machine, or over the two nodes of two_nodes.py."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from two_nodes import INTERFACE, TwoNodes, ends_with_us

REPOSITORY = Path(__file__).parent.parent
# While it is stopped or killed a program may have to end others, as mpirun does.
GRACE_S = 20
TIME_LIMIT_S = 600
# Ports within the namespaces, where nobody else listens. Those of the others follow from these.
STORE_PORT, GLOO_PORT, RAW_PORT = 29400, 29500, 29600

COMMON = "--oversubscribe --bind-to none --mca mpi_yield_when_idle 1".split()
CMA = "--mca btl_vader_single_copy_mechanism cma"
SHM = "--mca btl_vader_single_copy_mechanism none"
PAIRWISE = "--mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_alltoallv_algorithm 2"
# How OpenMPI moves large messages between processes of one machine; which is best differs by kernel.
LOCAL_SETTINGS = {
    "cma": CMA,
    "cma-pairwise": f"{CMA} {PAIRWISE}",
    "shm": SHM,
    "shm-256k": f"{SHM} --mca btl_vader_max_send_size 262144",
}
# Over nodes, with as many connections between two processes, and the same choices within a node. Larger fragments and
# buffers of sockets were tried, and were not faster.
NODES_SETTINGS = {
    "cma": CMA,
    "cma-pairwise": f"{CMA} {PAIRWISE}",
    "cma-2-links": f"{CMA} --mca btl_tcp_links 2",
    "shm": SHM,
    "shm-pairwise": f"{SHM} {PAIRWISE}",
}


def run(command, env=None):
    """Runs a program and returns what it printed."""
    return run_all([(command, env)])[0]


def run_all(commands):
    """Runs programs, (command, environment) each, at the same time, and returns what each printed. When one fails, or
    this one is interrupted, all are ended. Who fails first may not be the cause, so all say what they saw."""
    with contextlib.ExitStack() as stack:
        outputs = [tuple(stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)) for _ in commands]
        processes = []
        try:
            for (command, env), (out, err) in zip(commands, outputs):
                arguments = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "env": env}
                processes.append(subprocess.Popen(list(map(str, command)), **arguments))
            failed = wait_for_all(processes)
        finally:
            end_all(processes)
        texts = [[text_of(file) for file in pair] for pair in outputs]
    if failed is not None:
        command = " ".join(map(str, commands[failed][0]))
        said = "\n".join(dict.fromkeys(text[-2000:].strip() for _, text in texts if text.strip()))
        sys.exit(f"{command}\nfailed ({processes[failed].returncode}):\n{said}")
    return [out for out, _ in texts]


def text_of(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def wait_for_all(processes):
    """The number of the first that failed, or that was still running at the end of the time; None: all went well."""
    end = time.monotonic() + TIME_LIMIT_S
    while True:
        codes = [process.poll() for process in processes]
        for number, code in enumerate(codes):
            if code:
                return number
        if None not in codes:
            return None
        if time.monotonic() > end:
            return codes.index(None)
        time.sleep(0.05)


def end_all(processes):
    for process in processes:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def mpirun(settings, setting):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *root, *COMMON, *settings[setting].split()]


def gloo_program(problem, args):
    program = REPOSITORY / "bench/python/gloo_all_to_all.py"
    return [sys.executable, program, "--ranks", args.ranks, *problem]


def switchyard_program(problem, args):
    kind = ["--mode", args.mode, "--dtype", "bf16", "--routing", "uniform", "--check", "--engine", "cpu"]
    if args.mode == "latency":
        kind += ["--coding", args.coding]
    return [args.build / "src/cli/switchyard", "bench", *problem, *kind]


class OneMachine:
    """All ranks are processes of this machine."""

    settings = LOCAL_SETTINGS

    def __init__(self, args):
        self.args = args

    def mpi(self, program, problem, setting):
        command = [*mpirun(self.settings, setting), "-n", self.args.ranks, "--mca", "btl", "self,vader"]
        return json.loads(run(ends_with_us([*command, program, *problem])))

    def gloo(self, problem):
        return json.loads(run(ends_with_us(gloo_program(problem, self.args))))

    def switchyard(self, problem):
        command = [*switchyard_program(problem, self.args), "--ranks", self.args.ranks]
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            run(ends_with_us([*command, "--json", result.name]))
            return json.loads(Path(result.name).read_text(encoding="utf-8"))


class OverNodes:
    """Ranks are processes of the two nodes, as many on each; TCP over the cable is what carries bytes between them."""

    settings = NODES_SETTINGS

    def __init__(self, args, nodes: TwoNodes):
        self.args = args
        self.nodes = nodes
        self.local_ranks = args.ranks // nodes.size

    def mpi(self, program, problem, setting):
        nodes = self.nodes
        hosts = ",".join(f"{nodes.address(node)}:{self.local_ranks}" for node in range(nodes.size))
        where = ["-n", self.args.ranks, "--map-by", "slot", "--host", hosts]
        # Neither UCX nor libfabric: the BTLs, of which tcp joins the nodes and vader (shared memory) each node's ranks.
        over = ["--mca", "pml", "ob1", "--mca", "btl", "self,vader,tcp", "--mca", "btl_tcp_if_include", INTERFACE,
                "--mca", "oob_tcp_if_include", INTERFACE, "--mca", "plm_rsh_agent", REPOSITORY / "tools/node_agent"]
        command = [*mpirun(self.settings, setting), *where, *over, program, *problem]
        pids = " ".join(f"{nodes.address(node)}={nodes.pid(node)}" for node in range(nodes.size))
        return json.loads(run(nodes.inside(0, command), os.environ | {"NODE_PIDS": pids}))

    def gloo(self, problem):
        meeting = ["--meeting", f"tcp://{self.nodes.address(0)}:{GLOO_PORT}"]
        env = os.environ | {"GLOO_SOCKET_IFNAME": INTERFACE}
        commands = []
        for node in range(self.nodes.size):
            part = ["--local-ranks", self.local_ranks, "--first-rank", node * self.local_ranks]
            command = [*gloo_program(problem, self.args), *meeting, *part]
            commands.append((self.nodes.inside(node, command), env))
        return json.loads(run_all(commands)[0])

    def switchyard(self, problem):
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            program = [*switchyard_program(problem, self.args), "--launch", "environment", "--json", result.name]
            run_all([(self.nodes.inside(rank // self.local_ranks, program), env) for rank, env in self.environments()])
            return json.loads(Path(result.name).read_text(encoding="utf-8"))

    def one_node(self, problem):
        """The same job with all ranks on one node."""
        return OneMachine(self.args).switchyard(problem)

    def environments(self):
        """What each rank learns of the job. Which node it is on it finds by itself."""
        places = ("SWITCHYARD_NODE", "SWITCHYARD_ADDRESS")
        own = {name: value for name, value in os.environ.items() if name not in places}
        job = {
            "SWITCHYARD_WORLD_SIZE": str(self.args.ranks),
            "SWITCHYARD_STORE": f"{self.nodes.address(0)}:{STORE_PORT}",
            "SWITCHYARD_TOKEN": secrets.token_hex(16),
        }
        return [(rank, own | job | {"SWITCHYARD_RANK": str(rank)}) for rank in range(self.args.ranks)]

    def raw(self, options):
        """What the transport alone gives between the nodes; as it prints it."""
        program = [self.args.build / "bench/transport/transport-rate", *options]
        where = f"{self.nodes.address(0)}:{RAW_PORT}"
        listening = self.nodes.inside(0, [*program, "--listen", where])
        connecting = self.nodes.inside(1, [*program, "--connect", where])
        return run_all([(listening, None), (connecting, None)])[1]
