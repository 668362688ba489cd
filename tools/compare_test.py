#!/usr/bin/env python3
"""Asks compare.py what it makes of options, and of what programs would have printed; and its nodes, whether anything
of them stays. The latter takes root and is skipped without."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

import compare
import compare_report
import compare_sides
import two_nodes

TOOLS = Path(__file__).parent


def parse(text):
    return compare.parse_arguments([*text.split(), "--build", "."])


class Options(unittest.TestCase):
    def refusal(self, text):
        out = io.StringIO()
        with contextlib.redirect_stderr(out), self.assertRaises(SystemExit):
            parse(text)
        return out.getvalue().splitlines()[-1]

    def test_defaults(self):
        self.assertEqual(parse("mpi").tokens, [4096])
        self.assertEqual(parse("mpi --nodes 2").tokens, [0, 4096])
        self.assertEqual(parse("mpi --nodes 2 --mode latency").tokens, [128])
        self.assertEqual(parse("mpi,gloo --tokens 0,16").tokens, [0, 16])
        self.assertEqual(parse("mpi,gloo").others, ["mpi", "gloo"])

    def test_rates(self):
        self.assertEqual(parse("mpi --nodes 2 --rate 4gbit").rate, "4gbit")
        self.assertEqual(parse("mpi --nodes 2 --rate 2.5gbit").rate, "2.5gbit")
        self.assertIsNone(parse("mpi --nodes 2 --rate none").rate)
        self.assertIn("seen 4gbps", self.refusal("mpi --nodes 2 --rate 4gbps"))
        self.assertIn("--rate: expected --nodes 2", self.refusal("mpi --rate 4gbit"))

    def test_refusals(self):
        self.assertIn("multiple of the 2 nodes, seen 7", self.refusal("mpi --nodes 2 --ranks 7"))
        self.assertIn("invalid choice: 3", self.refusal("mpi --nodes 3"))
        self.assertIn("raw: expected --nodes 2", self.refusal("raw"))
        self.assertIn("parts: expected --nodes 2", self.refusal("parts"))
        self.assertIn("seen parts", self.refusal("parts --nodes 2 --others-only"))
        self.assertIn("there is one for mpi only", self.refusal("mpi,gloo --mode latency"))
        self.assertIn("expected --mode latency, seen --mode throughput", self.refusal("mpi --coding logfmt10"))
        self.assertIn("seen cma-2-links", self.refusal("mpi --setting cma-2-links"))
        self.assertIn("seen shm-256k", self.refusal("mpi --nodes 2 --setting shm-256k"))
        self.assertIn("at least 1", self.refusal("mpi --rounds 0"))
        self.assertIn("invalid choice: 'nccl'", self.refusal("nccl"))


class Bytes(unittest.TestCase):
    def by_trying(self, args):
        """Rows out of a node, over all choices that a token has: to each rank, and to each node."""
        size = args.ranks // args.nodes
        parts = compare_report.parts_of(args.experts, args.ranks)
        rank_of = [rank for rank, part in enumerate(parts) for _ in range(part)]
        to_ranks = to_nodes = choices = 0
        for chosen in itertools.combinations(range(args.experts), args.top_k):
            ranks = {rank_of[expert] for expert in chosen}
            for node in range(args.nodes):
                choices += 1
                to_ranks += sum(rank // size != node for rank in ranks)
                to_nodes += len({rank // size for rank in ranks} - {node})
        row = args.tokens[0] * size * args.hidden * 2
        return row * to_ranks / choices, row * to_nodes / choices

    def test_against_all_choices(self):
        for shape in ("--ranks 4 --experts 8 --top-k 3", "--ranks 8 --experts 10 --top-k 2", "--ranks 2 --experts 5"):
            args = parse(f"mpi --nodes 2 --tokens 10 --hidden 16 {shape} " + ("" if "top" in shape else "--top-k 1"))
            others, ours = self.by_trying(args)
            found = compare_report.wire_bytes(args, 10)
            self.assertAlmostEqual(found["mpi"], others, msg=shape)
            self.assertAlmostEqual(found["gloo"], others, msg=shape)
            self.assertAlmostEqual(found["switchyard"], ours, msg=shape)

    def test_share(self):
        def measured(us):
            return {part: {"median_us": us, "recv_bytes_per_rank": 0} for part in ("dispatch", "combine")}

        args = parse("mpi --nodes 2 --tokens 4096")
        job = compare.Job(args, None, 4096)
        raw = {"sizes": [{"bytes": 262144, "both_ways_gbps": 0.5, "one_way_gbps": 0.5, "half_round_trip_us": 1.0}]}
        case = compare_report.summary(args, job, [{"mpi": measured(2e6), "switchyard": measured(5e5), "raw": raw}] * 3)
        self.assertEqual(case["ratio"]["mpi"]["dispatch"], 4)
        bytes_of = compare_report.wire_bytes(args, 4096)
        self.assertAlmostEqual(case["share"]["switchyard"]["combine"], bytes_of["switchyard"] / (0.5e9 * 0.5))
        self.assertAlmostEqual(case["share"]["mpi"]["dispatch"], bytes_of["mpi"] / (0.5e9 * 2))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            compare_report.report(args, [case], "a cable")
        self.assertIn("8 ranks on 2 nodes, a cable", out.getvalue())
        self.assertIn("MB of rows out of a node: MPI 6", out.getvalue())

    def test_low_latency_says_what_crossed(self):
        def measured(us, sent):
            parts = ("dispatch", "combine", "both")
            case = {"tokens": 128, "dispatch_bytes_per_rank": 9, "combine_bytes_per_rank": 9,
                    "host": {part: {"p50_us": us, "p99_us": us} for part in parts},
                    "wire_bytes_per_rank": {"dispatch": sent, "combine": sent / 2}, "wire_writes_per_rank": 70}
            return compare.as_parts({"cases": [case], "dispatch": {}, "combine": {}})

        args = parse("mpi --nodes 2 --mode latency")
        raw = {"sizes": [{"bytes": 16384, "both_ways_gbps": 1, "one_way_gbps": 1, "half_round_trip_us": 5.0}]}
        rounds = [{"mpi": measured(2e4, 0), "switchyard": measured(us, 1.8e6), "raw": raw} for us in (500, 600, 1000)]
        case = compare_report.summary(args, compare.Job(args, None, 128), rounds)
        self.assertEqual(case["round_trips"], {"dispatch": 60, "combine": 60, "both": 60})
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            compare_report.report(args, [case], "a cable")
        self.assertIn("raw 10.0 us a round trip of 16 KiB; a rank sends 1.800 MB in a dispatch, 0.900 in a combine, "
                      "in 70 writes\n128 tokens: in raw round trips, dispatch 60.0, combine 60.0, both 60.0\n",
                      out.getvalue())

    def test_of_parts(self):
        def measured(us, cpu_us):
            parts = ("dispatch", "combine")
            return {part: {"median_us": us, "recv_bytes_per_rank": 0} for part in parts} | {
                "cpu_us_all_ranks": dict.fromkeys(parts, cpu_us)}

        args = parse("parts --nodes 2 --tokens 4096")
        job = compare.Job(args, None, 4096)
        self.assertTrue(job.wants_one_node())
        sent = compare_report.wire_bytes(args, 4096)["switchyard"]
        raw = {"bytes": 262144, "both_ways_gbps": sent / 1e9 / 0.1, "both_ways_cpu_s_per_gb": 0.04 / (sent / 1e9),
               "one_way_gbps": 0.5, "half_round_trip_us": 1.0}  # 100 ms, and 40 ms of processors on each node
        rounds = [{"switchyard": measured(factor * 150e3, factor * 200e3), "one_node": measured(50e3, 120e3),
                   "raw": {"sizes": [raw]}} for factor in (1.2, 1.1, 1.0)]
        case = compare_report.summary(args, job, rounds)
        self.assertAlmostEqual(case["of_parts"]["dispatch"]["time"], 1.1)
        self.assertAlmostEqual(case["of_parts"]["combine"]["cpu"], 1.1)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            compare_report.report(args, [case], "a cable")
        self.assertIn("combine on one node): 1.10 in time, 1.10 in processor time", out.getvalue())
        self.assertFalse(compare.Job(parse("parts --nodes 2 --rate 4gbit"), None, 4096).wants_one_node())


class Programs(unittest.TestCase):
    def test_outputs_in_order(self):
        commands = [(["sh", "-c", f"sleep 0.{3 - number}; echo {number}"], None) for number in range(3)]
        self.assertEqual(compare_sides.run_all(commands), ["0\n", "1\n", "2\n"])

    def test_one_that_fails_ends_the_others(self):
        began = time.monotonic()
        with self.assertRaises(SystemExit) as caught:
            compare_sides.run_all([(["sleep", "60"], None), (["sh", "-c", "echo why >&2; exit 3"], None)])
        self.assertIn("failed (3):\nwhy", str(caught.exception))
        self.assertLess(time.monotonic() - began, 30)

    def test_agent_names_a_node_that_is_not_there(self):
        env = os.environ | {"NODE_PIDS": "10.0.0.1=1"}
        result = subprocess.run([TOOLS / "node_agent", "10.0.0.2", "true"], env=env, capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stderr), (1, "node_agent: no such node: 10.0.0.2\n"))


@unittest.skipIf(two_nodes.why_not(), two_nodes.why_not())
class Nodes(unittest.TestCase):
    def in_node(self, nodes, node, *command):
        return subprocess.run(nodes.inside(node, command), capture_output=True, text=True, check=True).stdout

    def test_two_that_reach_each_other(self):
        with two_nodes.TwoNodes("100mbit") as nodes:
            names = [self.in_node(nodes, node, "hostname").strip() for node in range(2)]
            self.assertEqual(names, ["node0", "node1"])
            route = self.in_node(nodes, 0, "ip", "route", "get", nodes.address(1))
            self.assertIn("dev eth0", route)
            self.assertIn("tbf", self.in_node(nodes, 1, "tc", "qdisc", "show", "dev", "eth0"))

    def test_processes_in_them_end_with_them(self):
        with two_nodes.TwoNodes() as nodes:
            namespace = os.readlink(f"/proc/{nodes.pid(1)}/ns/net")
            left = subprocess.Popen(nodes.inside(1, ["sleep", "60"]))
            while left.pid not in two_nodes.processes_of(namespace):
                time.sleep(0.01)
        self.assertEqual(left.wait(10), -signal.SIGKILL)
        self.assertEqual(two_nodes.processes_of(namespace), [])

    def test_nothing_stays_when_the_tool_is_killed(self):
        program = (f"import sys, time; sys.path.insert(0, {str(TOOLS)!r}); import two_nodes\n"
                   "with two_nodes.TwoNodes() as nodes:\n    print(nodes.pid(0), flush=True)\n    time.sleep(60)\n")
        tool = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        holder = int(tool.stdout.readline())
        namespace = os.readlink(f"/proc/{holder}/ns/net")
        tool.kill()
        tool.communicate()
        end = time.monotonic() + 10
        while two_nodes.processes_of(namespace) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(two_nodes.processes_of(namespace), [])


if __name__ == "__main__":
    unittest.main()
