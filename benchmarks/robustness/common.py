"""Data and difference measures that several checks share."""

from contextlib import suppress

import torch
from torch import Tensor

from benchmarks.robustness.subjects import NotApplicableError, Subject

YES, NO = "yes", "no"
VECTORS = 256
MANY = 2048


def normal(subject: Subject, count: int, seed: int = 0) -> Tensor:
    """Return vectors [1, count, D] from N(0, 1)."""
    return torch.randn(1, count, subject.dim, generator=torch.Generator().manual_seed(seed))


def with_drawn_codes(subject: Subject, mean: float = 0.0) -> Tensor:
    """Return vectors from N(mean, 1), after setting the first K of them as codes if the subject allows it."""
    x = mean + normal(subject, MANY)
    with suppress(NotApplicableError):
        subject.put_codes(x[0, : subject.size])
    return x


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max()) if difference.numel() else 0.0


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Return the change of the tensor that changed most, norm over norm, in percent."""
    changes = [relative_change(tensor, after[name]) for name, tensor in before.items()]
    return float(torch.tensor([0.0, *changes]).max())  # NaN if any of them is


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return the norm of the change over the norm before it, in percent."""
    if torch.equal(before, after):
        return 0.0
    return 100 * float((after.double() - before.double()).norm() / before.double().norm())


def finite(number: float) -> str:
    return YES if abs(number) < float("inf") else NO


def loss_of(subject: Subject, x: Tensor, mask: Tensor | None = None) -> float:
    loss = subject.forward(x, mask).loss
    if loss is None:
        raise NotApplicableError
    return float(loss.detach())
