"""Checks of vectors that are not finite and of batches without valid vectors."""

import torch
from torch import Tensor

from benchmarks.robustness.common import VECTORS, finite, loss_of, moved, normal
from benchmarks.robustness.subjects import NotApplicableError, Subject


def needs_masks(subject: Subject) -> None:
    if not subject.knows_masks:
        raise NotApplicableError


def lost_codes(subject: Subject) -> float:
    """Return the percentage of codes with an element that is not finite."""
    return 100 * float((~subject.codes().isfinite().all(-1)).float().mean())


def with_nan(subject: Subject) -> Tensor:
    x = normal(subject, VECTORS)
    x[0, 7] = torch.nan
    return x


def nan_vector(subject: Subject) -> float:
    subject.codes()
    subject.train(with_nan(subject))
    return lost_codes(subject)


def nan_padding(subject: Subject) -> float:
    needs_masks(subject)
    subject.codes()
    x = with_nan(subject)
    subject.train(x, ~x.isnan().any(-1))
    return lost_codes(subject)


def nan_loss(subject: Subject) -> str:
    return finite(loss_of(subject, with_nan(subject)))


def all_masked_loss(subject: Subject) -> float:
    needs_masks(subject)
    return loss_of(subject, normal(subject, VECTORS), torch.zeros(1, VECTORS, dtype=torch.bool))


def all_masked_state(subject: Subject) -> float:
    needs_masks(subject)
    before = subject.state()
    subject.forward(normal(subject, VECTORS), torch.zeros(1, VECTORS, dtype=torch.bool))
    return moved(before, subject.state())


def empty_batch_loss(subject: Subject) -> float:
    return loss_of(subject, normal(subject, 0))


def empty_batch_state(subject: Subject) -> float:
    before = subject.state()
    subject.forward(normal(subject, 0))
    return moved(before, subject.state())
