"""Sample codes from a prior, and filter its distribution: pure functions of logits [..., K].

A code that a filter removes gets the logit −∞. Among equal logits, the lowest codes remain. At least one code
remains.
"""

import torch
from torch import Tensor

from benchmarks.models.condition import Condition
from benchmarks.models.prior import Prior, Steps
from quantizers.core.arguments.checks import check_at_least


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return (logits − their maximum) / temperature: unchanged at 1, sharper below, flatter above.

    At 0 it is the limit: the largest logit, with equal probabilities if there are several.

    Raises: ValueError for a temperature below 0 or not finite.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r}, expected a finite number of at least 0")
    below = logits - logits.amax(-1, keepdim=True)
    if temperature == 0:
        return torch.zeros_like(below).where(below == 0, -torch.inf)
    return (below / temperature).where(below != 0, 0.0)  # 0 / T is NaN for a T that underflows in float32


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, or all if there are fewer. Raises: ValueError for k < 1."""
    check_at_least("top_k", k, 1)
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    return _keep_first(logits, order, k)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of codes whose probabilities sum to p or more (Holtzman et al. 2019, arXiv
    1904.09751).

    Sums are in float64; the set may miss p by their rounding, below K · 2⁻⁵². All codes remain at p = 1.

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
    mask = (torch.arange(logits.shape[-1], device=logits.device) < count).expand_as(order)
    return logits.where(mask.scatter(-1, order, mask), -torch.inf)


def filter_logits(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Apply temperature, then top-k, then top-p to what remains; None skips a filter."""
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    return logits if top_p is None else keep_top_p(logits, top_p)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sample one code for each row of logits [..., K] from its softmax: [...] int64."""
    probabilities = logits.double().softmax(-1)
    drawn = torch.multinomial(probabilities.reshape(-1, logits.shape[-1]), 1, generator=generator)
    return drawn.view(logits.shape[:-1])


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
    """Sample codes [batch, h, w, n] int64 for `shape` (h, w), one after another.

    Args:
        prior: in evaluation mode.
        generator: on the prior's device.
        Others: see `filter_logits` and `Prior.start`.

    Raises: the errors of `Prior.start` and of the filters.
    """
    steps = prior.start(batch, shape, condition)
    return sample_steps(steps, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)


def sample_steps(
    steps: Steps,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Sample the codes of steps that have just begun, [batch, h, w, n] int64; see `sample`."""
    drawn = []
    while steps.left:
        logits = filter_logits(steps.logits(), temperature=temperature, top_k=top_k, top_p=top_p)
        drawn.append(draw(logits, generator))
        steps.append(drawn[-1])
    return torch.stack(drawn, 1).view(steps.batch, *steps.shape, len(steps.sizes))
