"""Checks that every model with a quantizer plugged in must pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in, take_codebook, unplug

METHODS = ("vq", "ema_vq", "simvq", "rotation_vq", "fsq", "gumbel")
"""The methods that each contract is tested with."""


def one_in_three(row: int, column: int) -> Any:
    """The marks of a pair in a table of tests: one in three is in `make test`, the others in `make fuzz`."""
    return [] if (row + column) % 3 == 0 else [pytest.mark.long]


RATES = (12.5, 25, 50, 75, 150)
"""Frame rates of codecs, in vectors per second."""
BANDWIDTHS = (None, 0.0, *(tenths / 10 for tenths in range(1, 241)))
"""In kbit/s; None and 0 stand for all codebooks."""


MOST_STEPS = 100
"""Of a training whose loss must fall. A method that draws its codes takes a few more on some machines than on
others."""


def loss_falls(model: nn.Module, losses: Callable[[], tuple[Tensor, Tensor]], rate: float = 3e-3) -> None:
    """Adam on one batch reduces the mean reconstruction loss of three steps to 0.85 of that of the first three.

    Args: losses: computes the reconstruction loss of a step, and the quantizer's loss as the model returns it.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    reconstruction: list[float] = []
    for _ in range(MOST_STEPS):
        of_batch, of_codes = losses()
        optimizer.zero_grad()
        (of_batch + of_codes).backward()
        optimizer.step()
        reconstruction.append(of_batch.item())
        if len(reconstruction) > 3 and sum(reconstruction[-3:]) < 0.85 * sum(reconstruction[:3]):
            return
    raise AssertionError(f"the loss has not fallen: {reconstruction}")


def nearest_gap(z: Tensor, codebook: Tensor) -> Tensor:
    """How much farther the second nearest code is, in squared distance over the largest term that a matrix product
    of the two sums up; [N] in float64. Where it is below a few roundings, two searches may differ."""
    z, codebook = z.double(), codebook.double()
    distances = torch.cdist(z, codebook, compute_mode="donot_use_mm_for_euclid_dist").square()
    two = distances.topk(2, largest=False).values
    scale = z.square().sum(-1) + codebook.square().sum(-1).max()
    return (two[:, 1] - two[:, 0]) / scale


def agrees(indices: Tensor, original: Tensor, z: Tensor, codebook: Tensor, more: int = 0) -> bool:
    """Whether indices [N] are those of the original's search, except for vectors [N, D] between two codes [K, D].

    The original's search expands ‖z‖² − 2z·e + ‖e‖²: three terms and a dot product of D, each rounded in float32.
    It distinguishes two distances beyond 2 (D + 3) roundings of the largest term, and `more` if it has more.
    """
    rounding = (2 * (z.shape[-1] + 3) + more) * torch.finfo(torch.float32).eps
    clear = nearest_gap(z, codebook) > rounding
    assert clear.float().mean() > 0.9, "too few vectors are clear for a comparison"
    return bool((indices == original)[clear].all())


def stages_agree(indices: Tensor, original: Tensor, z: Tensor, codebook: Tensor, more: int = 0) -> Tensor:
    """Which vectors [N, D] have the same codes [stages, N] in all stages; where not, `agrees` must excuse it.

    Args: codebook: [stages, K, D].
    """
    same, residual = torch.ones(len(z), dtype=torch.bool), z
    for own, other, codes in zip(indices, original, codebook, strict=False):
        assert agrees(own[same], other[same], residual[same], codes, more)
        same, residual = same & (own == other), residual - codes[other]
    assert len(indices) == len(original)
    return same


def tones() -> Tensor:
    """Two short pieces of audio [2, 1, 160]."""
    time = torch.arange(160) / 160
    return torch.stack([(6.28 * rate * time).sin() for rate in (7, 13)])[:, None]


def check_kept(
    model: nn.Module,
    name: str,
    latents: Tensor,
    run: Callable[[], tuple[Tensor, Tensor, Tensor]],
    metric: Callable[[Tensor], Tensor] = lambda vectors: vectors,
    roundings: int = 1,
) -> None:
    """With `keep_codebook` a quantizer chooses the codes that the original chose, except where float32 cannot
    distinguish the distances of two; vectors are equal up to the roundings of a straight-through sum.

    Args:
        latents: [B, C, H, W]. run: what the model's quantizer makes of them: quantized, loss, indices [B·H·W].
        metric: what the original does to vectors [N, C] before the search. roundings: how many more both make.
    """
    codebook = take_codebook(model)
    before, loss, indices = run()
    plug_in(model, name, keep_codebook=True)
    after, new_loss, new_indices = run()
    z = metric(latents.movedim(1, -1).reshape(len(indices), -1))
    assert agrees(new_indices, indices, z, codebook)
    before, after = (quantized.movedim(1, -1).reshape(z.shape) for quantized in (before, after))
    # The original returns z + (e − z), rounded twice, on the scale of the larger of them.
    scale = torch.maximum(z.abs(), before.abs()) + z.abs()
    same = new_indices == indices
    eps = torch.finfo(torch.float32).eps
    assert ((after - before).abs() <= roundings * scale * eps)[same].all()
    torch.testing.assert_close(take_codebook(model), codebook, rtol=(roundings - 1) * eps, atol=0)
    if name not in ("ema_vq", "gumbel"):  # whose losses are others
        torch.testing.assert_close(new_loss, loss)
        # The terms have one value; which weight is the commitment's shows in what the encoder gets.
        gradients = [torch.autograd.grad(of, latents, retain_graph=True)[0] for of in (new_loss, loss)]
        new, old = (gradient.movedim(1, -1).reshape(z.shape)[same] for gradient in gradients)
        # A difference, its double, a weight and a mean, each rounded; the metric's gradient rounds as the metric.
        assert (new - old).abs().max() <= (4 + roundings) * eps * old.abs().max()


def check_unplugs(model: nn.Module, path: str, run: Callable[[], Tensor]) -> None:
    """After `unplug` the original is at its path again, and the model gives the same result as before."""
    original, keys, before = model.get_submodule(path), set(model.state_dict()), run()
    plug_in(model, "simvq")
    assert model.get_submodule(path) is not original
    assert set(model.state_dict()) != keys
    unplug(model)
    assert model.get_submodule(path) is original
    assert set(model.state_dict()) == keys
    assert torch.equal(run(), before)
