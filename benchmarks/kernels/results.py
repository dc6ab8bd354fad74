"""The measurements of a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.kernels.rivals import Rival
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import Times, ratios


@dataclass
class Row:
    """Measurements for one shape, of searches or of training steps; times, failures and memory by rival.

    times      milliseconds
    memory     bytes; None if they cannot be measured
    failures   sentences
    allowance  bytes that this library may take
    gemm       name of the faster bare product, empty if none was timed
    floors     milliseconds by kind of product, on a known accelerator
    """

    shape: Shape
    rivals: list[Rival]
    allowance: int
    times: dict[str, Times]
    failures: dict[str, str]
    gemm: str = ""
    floors: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """What was measured, in words."""
        return str(self.shape)

    def ratios(self) -> dict[str, dict[str, float | bool]]:
        return ratios(self.times, self.rivals)

    def record(self) -> dict[str, Any]:
        numbers = {
            "shape": asdict(self.shape),
            "times_ms": {name: asdict(times) for name, times in self.times.items()},
            "ratios": self.ratios(),
            "memory_bytes": self.memory,
            "memory_bar_bytes": self.allowance,
            "failures": self.failures,
        }
        if self.gemm:
            gflops = self.shape.flops / self.times[self.gemm].median / 1e6
            numbers |= {"gemm": self.gemm, "gemm_gflops_per_s": gflops}
        return numbers | ({"floors_ms": self.floors} if self.floors else {})


@dataclass
class RealRow(Row):
    """Measurements on one data set of real.py.

    data       its name
    share      of (vector, leaf) pairs that the search in evaluation scored; None if it was not searched
    wrong      share of wrong indices among the vectors that were judged in float64
    different  share of all vectors whose index differs from that of comparing all codes
    """

    data: str = ""
    share: float | None = None
    wrong: float | None = None
    different: float | None = None

    @property
    def where(self) -> str:
        return f"{self.data} {self.shape}"

    def record(self) -> dict[str, Any]:
        own = {"data": self.data, "share": self.share, "wrong": self.wrong, "different": self.different}
        return super().record() | own


@dataclass
class Slowdown:
    """Milliseconds of one rival's run, alone and beside busy processes."""

    rival: str
    alone: float
    beside: float

    @property
    def factor(self) -> float:
        return self.beside / self.alone


@dataclass
class Wrong:
    """Shares of wrong indices on one data set, by rival."""

    data: str
    k: int
    d: int
    shares: dict[str, float]
    failures: dict[str, str]


@dataclass
class Point:
    """Times by rival at one shape of a picture."""

    shape: Shape
    times: dict[str, Times]


@dataclass
class Results:
    """All measurements, in the order in which they were taken.

    The first four are of random vectors; `real` to `load` are those of real.py, of pruning.png, and of load.py.
    """

    implementation: str = ""
    left_out: list[str] = field(default_factory=list)
    search: list[Row] = field(default_factory=list)
    step: list[Row] = field(default_factory=list)
    exactness: list[Wrong] = field(default_factory=list)
    growth: list[Point] = field(default_factory=list)
    real: list[RealRow] = field(default_factory=list)
    real_step: list[RealRow] = field(default_factory=list)
    pruning: list[Point] = field(default_factory=list)
    load: list[Slowdown] = field(default_factory=list)
    interrupted: bool = False

    def rows(self) -> list[Row]:
        return [*self.search, *self.step, *self.real, *self.real_step]

    @property
    def is_empty(self) -> bool:
        return not (self.search or self.real or self.load)
