"""Checks of codes and indices: what is decoded, which code is chosen, and in which precision."""

import copy

import torch
from torch import Tensor

from benchmarks.kernels.exactness import wrong_share
from benchmarks.robustness.common import MANY, VECTORS, finite, largest, loss_of, normal, with_drawn_codes
from benchmarks.robustness.subjects import NotApplicableError, Subject

STEPS = 50


def decode_difference(subject: Subject, x: Tensor) -> float:
    """Return the difference of decode and forward. Decoding uses a copy with the codes before the forward."""
    earlier = copy.deepcopy(subject)
    out = subject.forward(x.requires_grad_(subject.module.training))
    with torch.no_grad():
        return largest(out.quantized - earlier.decode(out.indices).to(out.quantized.dtype))


def decode_in_training(subject: Subject) -> float:
    return decode_difference(subject, with_drawn_codes(subject))


def decode_in_evaluation(subject: Subject) -> float:
    subject.module.eval()
    return decode_difference(subject, with_drawn_codes(subject))


def decode_in_bfloat16(subject: Subject) -> float:
    x = with_drawn_codes(subject).bfloat16()
    subject.module.bfloat16()
    return decode_difference(subject, x)


def decode_of_zeros(subject: Subject) -> float:
    with_drawn_codes(subject)
    return decode_difference(subject, torch.zeros(1, VECTORS, subject.dim))


def decoded(subject: Subject, index: int) -> str:
    try:
        value = subject.decode(torch.tensor([[index, 3]]))[0, 0]
    except IndexError:
        return "IndexError"
    if not value.isfinite().all():
        return "NaN"
    return "a code" if value.any() else "zero"


def decode_minus_one(subject: Subject) -> str:
    return decoded(subject, -1)


def decode_too_large(subject: Subject) -> str:
    return decoded(subject, subject.size)


def wrong_indices(subject: Subject, mean: float) -> float:
    subject.codes()
    x = with_drawn_codes(subject, mean)
    subject.module.eval()
    return 100 * wrong_share(subject.forward(x).indices[0], x[0], subject.codes())


def wrong_at_100(subject: Subject) -> float:
    return wrong_indices(subject, 100)


def wrong_at_1000(subject: Subject) -> float:
    return wrong_indices(subject, 1000)


def one_at_a_time(subject: Subject) -> float:
    subject.codes()
    x = 100 + normal(subject, MANY, seed=1)
    with_drawn_codes(subject, mean=100)
    subject.module.eval()
    together = subject.forward(x).indices
    alone = torch.cat([subject.forward(x[:, n : n + 1]).indices for n in range(VECTORS)], 1)
    return 100 * float((together[:, :VECTORS] != alone).float().mean())


def autocast(subject: Subject) -> float:
    x = with_drawn_codes(subject) + 0.5 * normal(subject, MANY, seed=1)
    subject.module.eval()
    plain = subject.forward(x).indices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = subject.forward(x).indices
    return 100 * float((plain != cast).float().mean())


def half_state(subject: Subject) -> float:
    """Check only methods whose codes the library moves: with an optimizer, bfloat16 is the optimizer's concern.

    Both ends are rounded to bfloat16, so that the rounding of stored codes does not count.
    """
    start = subject.codes().clone()
    if list(subject.module.parameters()):
        raise NotApplicableError
    x = normal(subject, VECTORS).bfloat16()
    half = copy.deepcopy(subject)
    half.module.bfloat16()
    for each, vectors in ((subject, x.float()), (half, x)):
        for _ in range(STEPS):
            each.forward(vectors)
    end, off = (each.codes().bfloat16().double() for each in (subject, half))
    return 100 * float((off - end).norm() / (end - start).norm())


def half_loss(subject: Subject) -> str:
    x = 300 * normal(subject, VECTORS).sign().half()
    subject.module.half()
    return finite(loss_of(subject, x))
