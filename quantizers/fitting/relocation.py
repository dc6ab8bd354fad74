"""Exchanging codes on a sample, and between passes over all vectors."""

import math

import torch
from torch import Tensor

from quantizers.fitting.exchange import Uses, exchanged, uses_of
from quantizers.fitting.lloyd import is_settled, step_length
from quantizers.fitting.revival import moved, moved_by_sample
from quantizers.fitting.statistics import statistics_of
from quantizers.fitting.task import Task

ROUNDS = 8  # on a sample, at most
STEPS = 3  # of Lloyd's in a round
SHARE = 0.1  # of the codes may move at a time
FEWER = 4  # times, after an exchange that did not pay
SEEN = 64  # vectors of the sample per code, which show how to split it


def relocated(task: Task, codes: Tensor, count: int) -> Tensor:
    """Exchange codes, with Lloyd's steps in between, as long as this lowers the inertia of a sample.

    Args: codes: [K, D]. count: how many vectors of the sample.
    """
    z, kept, best = task.own_sample(count), codes, float("inf")
    for number in range(ROUNDS + 1 if len(codes) > 1 else 0):
        uses, indices = uses_of(z, codes, task.group)
        task.journal.record("growing samples", uses.found)
        task.journal.tell("growing samples", count, len(task.sample))
        if uses.found.inertia >= best or number == ROUNDS:
            break
        kept, best = codes, uses.found.inertia
        codes = exchanged(task, codes, uses, z, indices, SHARE, task.draws(4, count, number))
        if torch.equal(codes, kept):
            break
        codes = _stepped(task, codes, z, count, number)
    return kept


def _stepped(task: Task, codes: Tensor, z: Tensor, count: int, number: int) -> Tensor:
    for step in range(STEPS):
        found, indices = statistics_of(z, codes)
        draws = task.draws(5, count, number, step)
        codes = moved(task, codes, found.over(task.group), z, indices, draws)
    return codes


def exchanging_passes(task: Task, codes: Tensor, epochs: int, first: int = 0, **state: Tensor) -> Tensor:
    """Passes over all vectors with long steps, of which every second one but the last exchanges codes.

    Each step is one of `fitting.lloyd.passes`. If the inertia two passes after an exchange is no smaller than
    before it, the codes before it come back, and a quarter as many codes may move from then on.

    Args: as in `passes`. state: where a former process stopped.
    """
    share = float(state.get("share", SHARE))
    safe, best = state.get("safe"), float(state.get("best", math.inf))
    before = float(state.get("before", math.inf))
    for epoch in range(first, epochs):
        exchanges = epoch % 2 == 1 and epoch < epochs - 2 and int(share * len(codes)) > 0
        uses = _assigned(task, codes, with_utility=exchanges)
        inertia, is_last = uses.found.inertia, epoch == epochs - 1
        if epoch % 2 == 1 and safe is not None and inertia >= best:
            codes, safe, share = safe, None, share / FEWER
        else:
            is_last |= int(share * len(codes)) == 0 and is_settled(before, inertia)
            step = 1.0 if is_last or exchanges else step_length(task)
            means = moved_by_sample(task, codes, uses.found, task.draws(1, epoch), step=step)
            if exchanges and not is_last:
                codes, safe, best = _exchanged(task, codes, means, uses, share, epoch), means, inertia
            else:
                codes = means
        before = inertia
        numbers = {"share": share, "best": best, "before": before}
        kept = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
        kept |= {} if safe is None else {"safe": safe}
        task.journal.save(task.number, epochs if is_last else epoch + 1, codes, **kept)
        if is_last:
            break
    return codes


def _assigned(task: Task, codes: Tensor, *, with_utility: bool) -> Uses:
    """Assign all vectors, over all ranks."""
    uses = Uses(codes)
    add = uses.add if with_utility else uses.found.add
    for z in task.journal.counted("all vectors", task.blocks(codes), task.total):
        add(z, codes)
    uses.over(task.group)
    task.journal.record("all vectors", uses.found)
    return uses


def _exchanged(task: Task, codes: Tensor, means: Tensor, uses: Uses, share: float, epoch: int) -> Tensor:
    """The means of an assignment to `codes`, after an exchange that the sample guides."""
    z = task.own_sample(min(len(task.sample), SEEN * len(codes)))
    _, indices = statistics_of(z, codes)
    return exchanged(task, means, uses, z, indices, share, task.draws(6, epoch))
