"""switchyard.report: what pages hold, and what is said of files that are wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import report_files as files
from switchyard.report import ReportError, make_page


def page_of(tmp_path, **contents):
    return make_page(files.write(tmp_path, **contents))


def test_a_benchmark_keeps_its_numbers(tmp_path):
    bench = files.bench()
    data = files.data_of(page_of(tmp_path, bench=bench))
    (case,) = data["cases"]
    assert [matrix["name"] for matrix in case["matrices"]] == ["dispatch", "combine"]
    for matrix in case["matrices"]:
        assert matrix["bytes"] == bench["between_ranks"][matrix["name"]]["bytes"]
        assert matrix["wait_us"] == bench["between_ranks"][matrix["name"]]["wait_us"]
    assert case["experts"]["tokens"] == [files.expert_tokens().sum(axis=0).tolist()]
    assert case["experts"]["rank_of"] == [expert // 4 for expert in range(16)]
    assert case["node_by_rank"] == [0, 0, 1, 1]
    rows = {phase["name"]: phase for phase in case["phases"]}
    assert list(rows) == ["dispatch, slowest rank", "combine, slowest rank", "dispatch/announce", "dispatch/place"]
    assert (
        rows["combine, slowest rank"] | {"p50": 4000, "p95": None, "p99": 4800, "max": 5000}
        == rows["combine, slowest rank"]
    )
    assert rows["dispatch/place"]["p95"] == 1600 and rows["dispatch/place"]["count"] == 80
    assert dict(data["facts"])["routing"] == "zipf"


def test_plans_of_experts_keep_all_tokens_and_are_never_heavier(tmp_path):
    (case,) = files.data_of(page_of(tmp_path, bench=files.bench()))["cases"]
    now, *planned = case["balance"]
    tokens = files.expert_tokens()
    assert now["load"] == tokens.sum(axis=0).reshape(4, 4).sum(axis=1).tolist()
    # By hand: what a source sends to the other node's half of the experts.
    assert now["crossing"] == tokens[:2, 8:].sum() + tokens[2:, :8].sum()
    assert [plan["replicas"] for plan in planned] == [16, 20, 24, 28, 32, 36, 40, 44, 48]
    for plan in planned:
        assert sum(plan["load"]) == pytest.approx(tokens.sum())
        assert plan["imbalance"] == pytest.approx(max(plan["load"]) / np.mean(plan["load"]))
        assert plan["imbalance"] <= now["imbalance"]
        assert 0 <= plan["crossing"] <= tokens.sum()
    # Without replicas one GPU has all of the busiest expert.
    assert max(planned[0]["load"]) >= tokens.sum(axis=0).max()
    assert planned[-1]["imbalance"] < 1.1


def test_nodes_can_be_played(tmp_path):
    bench = files.bench()
    bench["between_ranks"]["node_by_rank"] = []
    (path,) = files.write(tmp_path, bench=bench)
    (alone,) = files.data_of(make_page([path]))["cases"]
    assert alone["balance"][0]["crossing"] is None and alone["node_by_rank"] == [0] * 4
    (four,) = files.data_of(make_page([path], nodes=4))["cases"]
    tokens = files.expert_tokens()
    own = sum(tokens[rank, 4 * rank : 4 * rank + 4].sum() for rank in range(4))
    assert four["balance"][0]["crossing"] == tokens.sum() - own
    with pytest.raises(ReportError, match="--nodes: expected a number that divides 4 ranks, seen 3"):
        make_page([path], nodes=3)


def test_cases_of_a_latency_benchmark(tmp_path):
    data = files.data_of(page_of(tmp_path, latency=files.latency()))
    assert [case["name"] for case in data["cases"]] == ["8 tokens a rank", "64 tokens a rank"]
    names = [phase["name"] for phase in data["cases"][1]["phases"]]
    assert names[:3] == [f"{call}, slowest rank (host)" for call in ("dispatch", "combine", "both")]


def test_a_benchmark_of_before_has_its_times_only(tmp_path):
    bench = files.bench()
    for key in ("between_ranks", "expert_tokens", "phases_us"):
        del bench[key]
    (case,) = files.data_of(page_of(tmp_path, bench=bench))["cases"]
    assert case["matrices"] == [] and case["experts"] is None and case["balance"] == []
    assert len(case["phases"]) == 2


def test_predictions_meet_what_was_measured(tmp_path):
    data = files.data_of(page_of(tmp_path, bench=files.bench(), plan=files.plan()))
    met = {(each["mode"], each["ranks"], each["call"]): each["measured_us"] for each in data["predicted"]}
    assert met[("throughput", 4, "dispatch")] == 2000 and met[("throughput", 4, "combine")] == 4000
    assert met[("throughput", 8, "dispatch")] is None and met[("latency", 4, "dispatch")] is None
    alone = files.data_of(page_of(tmp_path, plan=files.plan()))
    assert len(alone["predicted"]) == 6 and alone["cases"] == []


def test_a_trace_is_kept_and_drawn(tmp_path):
    (path,) = files.write(tmp_path, trace=files.trace())
    page = make_page([path])
    assert files.embedded(page, "trace") == open(path).read()
    data = files.data_of(page)
    timeline = data["timeline"]
    assert timeline["lanes"][:3] == ["rank 0", "rank 0, worker 1", "rank 1"]
    assert timeline["names"] == ["combine", "dispatch", "dispatch/announce", "dispatch/place"]
    assert len(timeline["spans"]) == 4 * 5 and timeline["left_out"] == 0
    assert timeline["spans"][0] == [0, 1, 0.0, 2000]
    place = {phase["name"]: phase for phase in data["cases"][0]["phases"]}["dispatch/place"]
    assert (place["count"], place["p50"], place["max"]) == (8, 1450, 1500)


def test_long_traces_are_drawn_in_part_and_kept_as_a_whole(tmp_path):
    spans = [{"ph": "X", "name": "a", "pid": 0, "tid": 0, "ts": i, "dur": i % 7000} for i in range(7000)]
    (path,) = files.write(tmp_path, trace={"traceEvents": spans})
    page = make_page([path])
    timeline = files.data_of(page)["timeline"]
    assert len(timeline["spans"]) == 6000 and timeline["left_out"] == 1000
    assert min(length for *_, length in timeline["spans"]) == 1000
    assert len(json.loads(files.embedded(page, "trace"))["traceEvents"]) == 7000


def test_a_recording_over_time(tmp_path):
    whole = files.data_of(page_of(tmp_path, record=files.whole_record()))
    parts = {f"rank{rank}": files.record(files.record_part(rank)) for rank in (2, 0, 3, 1)}
    apart = files.data_of(page_of(tmp_path, **parts))
    assert whole["cases"] == apart["cases"]
    (case,) = whole["cases"]
    assert case["experts"]["labels"][0] == "steps 1 to 2" and case["experts"]["labels"][-1] == "steps 11 to 12"
    for point, tokens in enumerate(case["experts"]["tokens"]):
        assert tokens == [95 if expert == 2 * point else 5 for expert in range(16)]
    dispatch, combine = case["matrices"]
    # 12 calls; a part has what came, so columns are who received.
    assert dispatch["bytes"] == [[100.0 * (to + 1) for to in range(4)]] * 4
    assert combine["wait_us"] == [[2.0 * other for other in range(4)]] * 4
    rows = {phase["name"]: phase for phase in case["phases"]}
    assert rows["a step"]["p50"] == pytest.approx(5000) and rows["a step"]["count"] == 24
    assert rows["dispatches of a step"]["max"] == 200
    assert case["balance"][0]["crossing"] is not None


def test_a_recording_without_sources_has_no_bytes(tmp_path):
    parts = [files.record_part(rank) for rank in range(4)]
    for part in parts:
        for key in ("tokens", "dispatches", "combines", "dispatch_us", "combine_us"):
            del part[key]
        for call in ("dispatch", "combine"):
            del part[call]["bytes"]
    (case,) = files.data_of(page_of(tmp_path, record=files.record(*parts)))["cases"]
    assert [matrix["bytes"] for matrix in case["matrices"]] == [None, None]
    assert case["balance"][0]["crossing"] is None and len(case["balance"]) == 10


def changed(content, path, value):
    """A copy with one value that is another."""
    copy = json.loads(json.dumps(content))
    *keys, last = path
    inner = copy
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return copy


two_parts = files.record(files.record_part(0), files.record_part(1))
wrong = {
    "empty": ("", "{0}: expected JSON, seen an empty file"),
    "not JSON": ("a,b\n1,2\n", "{0}: expected JSON, seen at line 1, column 1: Expecting value"),
    "a list": ("[1]", "{0}: expected an object, seen [1]"),
    "cut short": (json.dumps(files.trace())[:900], "{0}: expected JSON, seen one that ends at line 1, column "),
    "cut in a text": ('{{"schema": "switchy'.replace("{{", "{"), "{0}: expected JSON, seen one that ends at line 1"),
    "no schema": ("{}", "{0}: schema: expected switchyard-bench/1, switchyard-latency/1, switchyard-plan/1 or "),
    "version": (
        files.bench() | {"schema": "switchyard-bench/7"},
        "{0}: schema: expected switchyard-bench/1, switchyard-latency/1, switchyard-plan/1 or switchyard-record/1, "
        "seen 'switchyard-bench/7': another version wrote this file",
    ),
    "NaN": (
        json.dumps(changed(files.bench(), ["expert_tokens", 1, 2], float("nan"))),
        "{0}: expected finite numbers, ",
    ),
    "too large": (
        json.dumps(changed(files.bench(), ["expert_tokens", 1, 2], 12345)).replace("12345", "1e999"),
        "{0}: expert_tokens[1][2]: expected a finite number, 0 at least, seen inf",
    ),
    "negative": (
        changed(files.bench(), ["between_ranks", "dispatch", "wait_us", 3, 0], -1),
        "{0}: between_ranks: dispatch: wait_us[3][0]: expected a finite number, 0 at least, seen -1",
    ),
    "shape": (
        changed(files.bench(), ["between_ranks", "combine", "bytes"], [[1, 2], [3, 4]]),
        "{0}: between_ranks: combine: bytes: expected 4 x 4 numbers, seen 2 x 2",
    ),
    "ragged": (
        changed(files.bench(), ["expert_tokens", 0], [1, 2]),
        "{0}: expert_tokens: expected 4 x 16 numbers, seen [[1, 2]",
    ),
    "missing": (
        changed(files.bench(), ["dispatch"], {"median_us": 1}),
        "{0}: dispatch: p99_us: expected a value, seen none",
    ),
    "a text": (changed(files.bench(), ["ranks"], "4"), "{0}: ranks: expected a whole number from 1 to 4096, seen '4'"),
    "no spans": ({"traceEvents": []}, "{0}: traceEvents: expected spans (ph X), seen none"),
    "a span": (
        changed(files.trace(), ["traceEvents", 1, "dur"], "long"),
        "{0}: traceEvents[1]: dur: expected a finite number, 0 at least, seen 'long'",
    ),
    "ranks missing": (two_parts, "{0}: parts[0]: expected files of all 4 ranks, seen none of 2, 3"),
    "a rank twice": (
        files.record(files.record_part(1), files.record_part(1)),
        "{0}: parts[1]: rank: expected each rank once, seen 1 in {0}: parts[0], too",
    ),
    "points": (
        files.record(*(files.record_part(rank, points=6 - rank // 3) for rank in range(4))),
        "{0}: parts[3]: steps: expected 6 points, as on rank 0, seen",
    ),
    "predicted": (
        changed(files.plan(), ["cases", 0, "combine", "high_us"], None),
        "{0}: cases[0]: combine: high_us: expected a value, seen none",
    ),
}


@pytest.mark.parametrize("name", wrong)
def test_what_is_wrong_is_said_in_a_line(tmp_path, name):
    content, text = wrong[name]
    (path,) = files.write(tmp_path, file=content)
    with pytest.raises(ReportError) as caught:
        make_page([path])
    assert str(caught.value).startswith(text.format(path)), str(caught.value)
    assert "\n" not in str(caught.value)


def run(*arguments, cwd):
    command = [sys.executable, "-m", "switchyard.report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_the_command(tmp_path):
    paths = files.write(tmp_path, bench=files.bench(), trace=files.trace())
    done = run(*paths, "-o", "page.html", "--title", "A <run>", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "<h1>A &lt;run&gt;</h1>" in page and len(page) < 3e6
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    for arguments, status, text in (
        (["nowhere.json"], 2, "nowhere.json: expected a file that can be read, seen: No such file or directory"),
        ([paths[1], paths[1]], 2, "expected one trace at most"),
        ([paths[0], "--nodes", "-1"], 2, "--nodes: expected 0 or more, seen -1"),
        ([], 2, "the following arguments are required: FILE"),
        ([paths[0], "-o", "no/page.html"], 1, "no/page.html: cannot be written: No such file or directory"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == status and done.stderr.startswith("switchyard report: "), done.stderr
        assert text in done.stderr and "Traceback" not in done.stderr


def test_standard_input_is_a_file_like_others(tmp_path):
    program = "import sys; from switchyard.report import make_page; print(len(make_page(sys.argv[1:])))"
    command = [sys.executable, "-c", program, "-"]
    done = subprocess.run(command, input=json.dumps(files.plan()), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and int(done.stdout) > 1e6, done.stderr
    done = subprocess.run(command, input="{", capture_output=True, text=True, cwd=tmp_path)
    assert "ReportError: -: expected JSON, seen one that ends at line 1" in done.stderr


def test_without_plotly_it_says_what_to_install(tmp_path):
    (path,) = files.write(tmp_path, bench=files.bench())
    program = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'plotly' else find(name, package)\n"
        "from switchyard.report import main\n"
        f"main([{path!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "switchyard report: plotly: expected the Python package that draws the charts, seen none; pip install "
        "'switchyard[report]', or plotly\n"
    )
