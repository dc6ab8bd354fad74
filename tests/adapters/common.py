"""What every model with a quantizer plugged in must do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

METHODS = ("vq", "ema_vq", "simvq", "rotation_vq", "fsq", "gumbel")
"""Those that each contract is tried with."""

RATES = (12.5, 25, 50, 75, 150)
"""Of codecs, in vectors a second."""
BANDWIDTHS = (None, 0.0, *(tenths / 10 for tenths in range(1, 241)))
"""In kbit/s; None and 0 are all that there is."""


def loss_falls(
    model: nn.Module, losses: Callable[[], tuple[Tensor, Tensor]], steps: int = 30, rate: float = 3e-3
) -> None:
    """A few steps of Adam on one batch reduce the reconstruction loss.

    Args: losses: what a step computes: the reconstruction loss, and the quantizer's as the model gives it.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    reconstruction = []
    for _ in range(steps):
        of_batch, of_codes = losses()
        optimizer.zero_grad()
        (of_batch + of_codes).backward()
        optimizer.step()
        reconstruction.append(of_batch.item())
    first, last = (sum(part) / len(part) for part in (reconstruction[:3], reconstruction[-3:]))
    assert last < 0.9 * first, reconstruction


def nearest_gap(z: Tensor, codebook: Tensor) -> Tensor:
    """How much farther the second nearest code is, in squared distance over the largest term that a matrix product
    of the two sums up; [N] in float64. Where it is below a few roundings, two searches may differ."""
    z, codebook = z.double(), codebook.double()
    distances = torch.cdist(z, codebook, compute_mode="donot_use_mm_for_euclid_dist").square()
    two = distances.topk(2, largest=False).values
    scale = z.square().sum(-1) + codebook.square().sum(-1).max()
    return (two[:, 1] - two[:, 0]) / scale


def agrees(ours: Tensor, theirs: Tensor, z: Tensor, codebook: Tensor, more: int = 0) -> bool:
    """Whether indices [N] are those of another search, but for vectors [N, D] between two codes [K, D].

    Their searches expand ‖z‖² − 2z·e + ‖e‖²: three terms and a dot product of D, each rounded in float32, so that
    two distances are told apart beyond 2 (D + 3) roundings of the largest term, and as many `more` as they have.
    """
    rounding = (2 * (z.shape[-1] + 3) + more) * torch.finfo(torch.float32).eps
    clear = nearest_gap(z, codebook) > rounding
    assert clear.float().mean() > 0.9, "too few vectors are clear for a comparison"
    return bool((ours == theirs)[clear].all())


def stages_agree(ours: Tensor, theirs: Tensor, z: Tensor, codebook: Tensor, more: int = 0) -> Tensor:
    """Which vectors [N, D] have the same codes [stages, N] in all stages; where not, `agrees` must excuse it.

    Args: codebook: [stages, K, D].
    """
    same, residual = torch.ones(len(z), dtype=torch.bool), z
    for mine, other, codes in zip(ours, theirs, codebook, strict=False):
        assert agrees(mine[same], other[same], residual[same], codes, more)
        same, residual = same & (mine == other), residual - codes[other]
    assert len(ours) == len(theirs)
    return same


def tones() -> Tensor:
    """Two short pieces of audio [2, 1, 160]."""
    time = torch.arange(160) / 160
    return torch.stack([(6.28 * rate * time).sin() for rate in (7, 13)])[:, None]
