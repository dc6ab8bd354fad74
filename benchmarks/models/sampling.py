"""Codes drawn from a prior, and the filters that make a draw safer: pure functions of logits [..., K].

A code that a filter leaves out gets the logit −∞. Of equal logits the lowest codes stay. At least one code stays.
"""

import torch
from torch import Tensor

from benchmarks.models.condition import Condition
from benchmarks.models.prior import Prior
from quantizers.core.arguments.checks import check_at_least


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """(logits − their maximum) / temperature: the same distribution at 1, sharper below, flatter above.

    At 0 the limit: the largest logits, with equal probability where there are several.

    Raises: ValueError for a temperature below 0 or not finite.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r}, expected a finite number of at least 0")
    below = logits - logits.amax(-1, keepdim=True)
    if temperature == 0:
        return torch.zeros_like(below).where(below == 0, -torch.inf)
    return (below / temperature).where(below != 0, 0.0)  # 0 / T is NaN for a T that float32 does not hold


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits; all, where there are fewer. Raises: ValueError for k < 1."""
    check_at_least("top_k", k, 1)
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    return _keep_first(logits, order, k)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The smallest set of codes whose probabilities sum to p or more (Holtzman et al. 2019, arXiv 1904.09751).

    Sums are float64; their rounding, below K · 2⁻⁵², is by how much p can be missed. All stay at p = 1.

    Raises: ValueError for p outside (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p is {p!r}, expected a number above 0, at most 1")
    if p == 1:
        return logits
    probabilities, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    return _keep_first(logits, order, (before < p).sum(-1, keepdim=True))


def _keep_first(logits: Tensor, order: Tensor, count: Tensor | int) -> Tensor:
    kept = (torch.arange(logits.shape[-1], device=logits.device) < count).expand_as(order)
    return logits.where(kept.scatter(-1, order, kept), -torch.inf)


def filter_logits(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Temperature, then top-k, then top-p of what is left; None leaves a filter out."""
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    return logits if top_p is None else keep_top_p(logits, top_p)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One code for each row of logits [B, K], with its softmax's probability: [B] int64."""
    return torch.multinomial(logits.double().softmax(-1), 1, generator=generator)[:, 0]


def sample(
    prior: Prior,
    batch: int,
    shape: tuple[int, int],
    condition: Condition | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Codes [batch, h, w, n] int64 for `shape` (h, w), drawn one after another.

    Args: prior: in evaluation mode. generator: on the prior's device. Others: see `filter_logits`, `Prior.start`.

    Raises: as `Prior.start` and the filters.
    """
    steps = prior.start(batch, shape, condition)
    drawn = []
    while steps.left:
        logits = filter_logits(steps.logits(), temperature=temperature, top_k=top_k, top_p=top_p)
        drawn.append(draw(logits, generator))
        steps.append(drawn[-1])
    return torch.stack(drawn, 1).view(batch, *shape, len(prior.sizes))
