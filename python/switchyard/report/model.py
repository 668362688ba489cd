"""What a page shows: numbers and words only, whatever file they come from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Matrix:
    """What travelled between ranks, and who waited, in a kind of call.

    Attributes:
        bytes: [R, R] a call: from, to.
        wait_us: [R, R] a call: who waited, for whom.
    """

    name: str
    bytes: list[list[float]] | None = None
    wait_us: list[list[float]] | None = None


@dataclass
class ExpertLoad:
    """Tokens of each expert over time.

    Attributes:
        labels: of the points in time.
        tokens: [T, E].
        rank_of: [E].
    """

    labels: list[str]
    tokens: list[list[float]]
    rank_of: list[int]


@dataclass
class Phase:
    """How long something took, in microseconds; None where the file has no such number."""

    name: str
    count: int | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass
class Balance:
    """How experts lie: now, or by a plan.

    Attributes:
        load: [G] tokens of each GPU.
        imbalance: the heaviest GPU's by the mean.
        crossing: tokens that leave their node; None where that is not known.
    """

    replicas: int
    load: list[float]
    imbalance: float
    crossing: float | None


@dataclass
class Case:
    """A benchmark's count of tokens, or a run."""

    name: str
    node_by_rank: list[int]
    matrices: list[Matrix] = field(default_factory=list)
    experts: ExpertLoad | None = None
    phases: list[Phase] = field(default_factory=list)
    balance: list[Balance] = field(default_factory=list)  # first as experts lie now


@dataclass
class Measured:
    """A time that a plan may have predicted."""

    mode: str
    ranks: int
    tokens: int
    call: str
    us: float


@dataclass
class Predicted:
    """A time that a plan predicts, with its interval."""

    mode: str
    ranks: int
    tokens: int
    call: str
    us: float
    low_us: float
    high_us: float
    bottleneck: str
    parts_us: dict[str, float] = field(default_factory=dict)  # what its resources need, each alone
    measured_us: float | None = None


@dataclass
class Timeline:
    """Spans of a trace: of lane (index of lanes), name (index of names), begin and length in microseconds."""

    lanes: list[str]
    names: list[str]
    spans: list[tuple[int, int, float, float]]
    left_out: int


@dataclass
class Page:
    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    timeline: Timeline | None = None
