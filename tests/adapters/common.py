"""What every model with a quantizer plugged in must do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quantizers import plug_in, take_codebook, unplug

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


def check_kept(
    model: nn.Module,
    name: str,
    latents: Tensor,
    run: Callable[[], tuple[Tensor, Tensor, Tensor]],
    metric: Callable[[Tensor], Tensor] = lambda vectors: vectors,
    roundings: int = 1,
) -> None:
    """Plugged in with `keep_codebook`, a quantizer gives what the nearest code gave, but where two are as near as
    float32 tells; the codes but for the roundings of a straight-through sum.

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
    # Theirs is z + (e − z), rounded twice, on the scale of the larger of them.
    scale = torch.maximum(z.abs(), before.abs()) + z.abs()
    same = new_indices == indices
    eps = torch.finfo(torch.float32).eps
    assert ((after - before).abs() <= roundings * scale * eps)[same].all()
    torch.testing.assert_close(take_codebook(model), codebook, rtol=(roundings - 1) * eps, atol=0)
    if name not in ("ema_vq", "gumbel"):  # whose losses are others
        torch.testing.assert_close(new_loss, loss)
        # The terms have one value; which weight is the commitment's shows in what the encoder gets.
        gradients = [torch.autograd.grad(of, latents, retain_graph=True)[0] for of in (new_loss, loss)]
        ours, theirs = (gradient.movedim(1, -1).reshape(z.shape)[same] for gradient in gradients)
        # A difference, its double, a weight and a mean, each rounded; the metric's gradient rounds as the metric.
        assert (ours - theirs).abs().max() <= (4 + roundings) * eps * theirs.abs().max()


def check_unplugs(model: nn.Module, path: str, run: Callable[[], Tensor]) -> None:
    """What stood at a path stands there again after `unplug`, and the model is what it was."""
    original, keys, before = model.get_submodule(path), set(model.state_dict()), run()
    plug_in(model, "simvq")
    assert model.get_submodule(path) is not original
    assert set(model.state_dict()) != keys
    unplug(model)
    assert model.get_submodule(path) is original
    assert set(model.state_dict()) == keys
    assert torch.equal(run(), before)
