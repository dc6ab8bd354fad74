"""Shared by the examples: train each quantizer with several seeds, count its codes, and report the effect of the
swap.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from rich import box
from rich.console import Console, Group
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.files import write_bytes, write_json
from benchmarks.plots import save
from benchmarks.progress import UPDATE_EVERY, columns
from benchmarks.training import learning_rate_schedule, make_optimizer
from quantizers import metrics

LEARNING_RATE = 3e-3
PACKAGES = ("diffusers", "transformers")

QuantizerName = Annotated[str, typer.Option("--quantizer", help="One of quantizers.available().")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps of each model.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="How often each model is trained, from other weights.")]
Out = Annotated[Path, typer.Option("--out", help="The output folder.")]
FOLDER = Path("runs/examples")


@dataclass(frozen=True)
class Measure:
    """A number that is measured on held-out data: its key in the JSON, and its heading and decimals in the
    table.
    """

    key: str
    heading: str
    places: int = 2


@dataclass(frozen=True)
class Trial:
    """One training: measurements on held-out data, by key; code counts of each codebook there, int64 [K]; and
    what the picture shows of it.
    """

    measured: dict[str, float]
    counts: Sequence[Tensor] = ()
    shown: Any = None


@dataclass(frozen=True)
class Trainer:
    """Trains a model for a number of steps, with a progress bar."""

    steps: int
    bar: Progress
    description: str

    def __call__(self, model: nn.Module, step: Callable[[], Tensor]) -> None:
        """Train with Adam on the loss of `step()`; the learning rate falls to zero at the end."""
        optimizer = make_optimizer(model, LEARNING_RATE)
        schedule = learning_rate_schedule(optimizer, self.steps)
        task = self.bar.add_task(self.description, total=self.steps, state="")
        model.train()
        for i in range(self.steps):
            loss = step()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            state = {"state": f"loss {loss.item():.3f}"} if i % UPDATE_EVERY == 0 else {}
            self.bar.update(task, advance=1, **state)
        model.eval()


Run = Callable[[int, Trainer], Trial]
"""Trains a model with a seed and a trainer, and measures it."""


@dataclass(frozen=True)
class Result:
    """The trials of one quantizer, one for each seed."""

    name: str
    trials: Sequence[Trial]

    def values(self, key: str) -> list[float]:
        """Return a measurement of each trial; nothing if it does not apply to them."""
        return [trial.measured[key] for trial in self.trials if key in trial.measured]

    def codebooks(self) -> list["Codebook"]:
        """Return the use of each codebook on held-out data."""
        return [Codebook(counts) for counts in zip(*(trial.counts for trial in self.trials), strict=True)]


@dataclass(frozen=True)
class Codebook:
    """How often each code of a codebook occurs on held-out data: int64 [K] for each trial."""

    counts: Sequence[Tensor]

    def values(self, of: Callable[[Tensor], float]) -> list[float]:
        """Return a metric of each trial."""
        return [of(counts) for counts in self.counts]

    def cells(self) -> list[str]:
        """Return the number of codes, the percentage that is used, and the perplexity."""
        used = [100 * share for share in self.values(metrics.utilization)]
        return [str(len(self.counts[0])), words(used, 1), words(self.values(metrics.perplexity), 1)]

    def record(self) -> dict[str, Any]:
        """Return the metrics as JSON."""
        return {
            "codes": len(self.counts[0]),
            "utilization": spread(self.values(metrics.utilization)),
            "perplexity": spread(self.values(metrics.perplexity)),
            "entropy_bits": spread(self.values(metrics.entropy)),
        }


@dataclass(frozen=True)
class Comparison:
    """The results of all quantizers, and the settings that led to them."""

    measures: Sequence[Measure]
    results: Sequence[Result]
    steps: int
    seeds: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return all of this as JSON, with machine and versions."""
        rows = [
            {
                "quantizer": result.name,
                **{measure.key: spread(result.values(measure.key)) for measure in self.measures},
                "codebooks": [codebook.record() for codebook in result.codebooks()],
            }
            for result in self.results
        ]
        settings = {"steps": self.steps, "seeds": list(range(self.seeds)), "seconds": round(self.seconds, 1)}
        measured = machine.record(torch.device("cpu"))
        measured["versions"] |= {name: version(name) for name in PACKAGES}
        return {**settings, "results": rows, **measured}

    def tables(self) -> Group:
        """Return the measurements, and the use of each codebook on held-out data: mean ± standard deviation over
        seeds.
        """
        measured = _table("quantizer", *(measure.heading for measure in self.measures))
        used = _table("quantizer", "codes", "used %", "perplexity")
        for result in self.results:
            qualities = (words(result.values(measure.key), measure.places) for measure in self.measures)
            measured.add_row(result.name, *qualities)
            for i, codebook in enumerate(result.codebooks()):
                used.add_row(result.name if i == 0 else "", *codebook.cells())
        return Group(measured, "", used)


def _table(first: str, *others: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, show_edge=False)
    made.add_column(first)
    for heading in others:
        made.add_column(heading, justify="right")
    return made


def compare(
    runs: Sequence[tuple[str, Run]], measures: Sequence[Measure], steps: int, seeds: int, console: Console
) -> Comparison:
    """Train and measure each named quantizer once per seed, and print the results."""
    started = time.perf_counter()
    trials: list[list[Trial]] = [[] for _ in runs]
    with Progress(*columns(), console=console) as bar:
        for seed in range(seeds):
            for (name, run), found in zip(runs, trials, strict=True):
                found.append(run(seed, Trainer(steps, bar, f"{name}, seed {seed}")))
    results = [Result(name, found) for (name, _), found in zip(runs, trials, strict=True)]
    comparison = Comparison(measures, results, steps, seeds, time.perf_counter() - started)
    console.print(comparison.tables())
    return comparison


def write(
    folder: Path,
    name: str,
    comparison: Comparison,
    figure: Figure,
    console: Console,
    others: dict[str, bytes] | None = None,
) -> None:
    """Write `name`.png, `name`.json and other files into the folder, and name them."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / f"{name}.png", figure)
    write_json(folder / f"{name}.json", comparison.record())
    for file, content in (others or {}).items():
        write_bytes(folder / file, content)
    console.print(f"In {folder}: {', '.join([f'{name}.png', f'{name}.json', *(others or {})])}", highlight=False)


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Return mean, sample standard deviation (None for a single value) and the value of each seed; None without
    values.
    """
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "values": list(values)}


def words(values: Sequence[float], places: int) -> str:
    """Return "mean ± standard deviation", the value if there is only one, or a dash."""
    found = spread(values)
    if found is None:
        return "–"
    deviation = "" if found["sd"] is None else f" ± {found['sd']:.{places}f}"
    return f"{found['mean']:.{places}f}{deviation}"


def decibels(signal: Tensor, error: Tensor) -> float:
    """Return 10 log₁₀ of the ratio of the mean squares."""
    return 10 * torch.log10(signal.square().mean() / error.square().mean()).item()
