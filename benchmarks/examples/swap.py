"""Shared by the examples: train a model, count its codes, and report the effect of the swap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.progress import columns
from benchmarks.training import learning_rate_schedule, make_optimizer
from quantizers import metrics

LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Result:
    """A model's reconstruction quality on held-out data, in dB, and the code counts of each codebook."""

    name: str
    quality: float
    counts: Sequence[Tensor]  # of each codebook, int64 [K]


def train(model: nn.Module, name: str, step: Callable[[int], Tensor], steps: int, console: Console) -> None:
    """Train with Adam on the loss of `step(i)`; the learning rate falls to zero at the end. Shows a progress
    bar."""
    optimizer = make_optimizer(model, LEARNING_RATE)
    schedule = learning_rate_schedule(optimizer, steps)
    model.train()
    with Progress(*columns(), console=console) as bar:
        task = bar.add_task(name, total=steps, state="")
        for i in range(steps):
            loss = step(i)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(
                task, advance=1, state=f"loss {loss.item():.3f}" if i % 10 == 0 else bar.tasks[0].fields["state"]
            )
    model.eval()


def table(results: Sequence[Result], quality: str) -> Table:
    """Return a table with a row per codebook of each model. Utilization, perplexity and entropy are for held-out
    data.
    """
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("quantizer", "codebook", "codes used", "used %", "perplexity", "bits/code", quality):
        shown.add_column(heading, justify="left" if heading == "quantizer" else "right")
    for result in results:
        for i, counts in enumerate(result.counts):
            used = f"{int((counts > 0).sum())}/{len(counts)}"
            numbers = (100 * metrics.utilization(counts), metrics.perplexity(counts), metrics.entropy(counts))
            cells = [f"{number:.{places}f}" for number, places in zip(numbers, (1, 1, 2), strict=True)]
            first = i == 0
            shown.add_row(
                result.name if first else "", str(i + 1), used, *cells, f"{result.quality:.2f}" if first else ""
            )
    return shown


def record(results: Sequence[Result], quality: str, steps: int) -> dict[str, Any]:
    """Return the table as JSON, with machine and versions."""
    rows = [
        {
            "quantizer": result.name,
            quality: result.quality,
            "codebooks": [
                {
                    "codes": len(counts),
                    "utilization": metrics.utilization(counts),
                    "perplexity": metrics.perplexity(counts),
                    "entropy_bits": metrics.entropy(counts),
                }
                for counts in result.counts
            ],
        }
        for result in results
    ]
    return {"steps": steps, "results": rows, **machine.record(torch.device("cpu"))}


def decibels(signal: Tensor, error: Tensor) -> float:
    """Return 10 log₁₀ of the ratio of the mean squares."""
    return 10 * torch.log10(signal.square().mean() / error.square().mean()).item()
