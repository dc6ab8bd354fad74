"""Bounds on the difference between DAC's quantizer and the new one, whose matrix products sum in other orders."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = torch.finfo(torch.float32).eps
Result = tuple[Tensor, Tensor, Tensor]  # z_q [B, D, T], codes [B, N, T], latents [B, N·d, T]


@torch.no_grad()
def assert_agrees(new: Result, reference: Result, z: Tensor, original: Any) -> None:
    """Codes are the same but where two are as near as the roundings; latents and values where codes are.

    Two sums of n products in other orders differ by 2(n + 1) roundings of Σ|terms|, and a projection passes on
    what came in times its largest row sum. Stage by stage, `moved` is how far the residuals may lie apart.

    A stage with a `stride` (SNAC) takes means of so many vectors; codes and latents are repeated as often.
    """
    stages = list(original.quantizers)[: reference[1].shape[1]]
    width = reference[2].shape[1] // len(stages)
    residual, total, moved, of_sum = z, torch.zeros_like(z), 0.0, 0.0
    same = torch.ones_like(reference[1][:, 0], dtype=torch.bool)
    assert new[1].shape == reference[1].shape
    assert new[2].shape == reference[2].shape
    for place, stage in enumerate(stages):
        own, latents = (result[2][:, place * width : (place + 1) * width] for result in (new, reference))
        into, out = (_sizes(projection) for projection in (stage.in_proj, stage.out_proj))
        largest, stride = float(residual.abs().max()), getattr(stage, "stride", 1)
        moved += 2 * (stride - 1) * EPS * largest  # of a mean
        apart = into[0] * moved + _rounding(into, largest, residual.shape[1])
        assert float((own - latents).abs().amax(1)[same].max()) <= apart, "latents"
        clear = _gap(latents, stage.codebook.weight) > _unclear(latents, apart)
        assert clear[same].float().mean() > 0.9, "too few vectors are clear for a comparison"
        equal = new[1][:, place] == reference[1][:, place]
        assert equal[same & clear].all(), "codes"
        same = same & equal
        codes = F.embedding(reference[1][:, place], stage.codebook.weight).transpose(1, 2)
        # The original returns z_e + (e − z_e), rounded twice.
        largest = float(codes.abs().max() + latents.abs().max())
        value = stage.out_proj(codes)
        error = out[0] * 2 * EPS * largest + _rounding(out, largest, width)
        residual, total = residual - value, total + value
        moved += error + 2 * EPS * float(residual.abs().max() + value.abs().max())
        of_sum += error + 2 * EPS * float(total.abs().max())
    assert float((new[0] - reference[0]).abs().amax(1)[same].max()) <= of_sum, "values"


def _sizes(projection: Any) -> tuple[float, float]:
    """The largest row sum of a projection's weight, and of its bias."""
    return float(projection.weight.abs().sum((1, 2)).max()), float(projection.bias.abs().max())


def _rounding(sizes: tuple[float, float], largest: float, terms: int) -> float:
    return 2 * (terms + 1) * EPS * (sizes[0] * largest + sizes[1])


def _gap(latents: Tensor, codebook: Tensor) -> Tensor:
    """How much farther the second nearest direction is, in squared distance, [B, T] in float64."""
    unit, codes = F.normalize(latents.double(), dim=1).transpose(1, 2), F.normalize(codebook.double())
    two = (2 - 2 * unit @ codes.T).topk(2, largest=False).values
    return two[..., 1] - two[..., 0]


def _unclear(latents: Tensor, apart: float) -> Tensor:
    """Below which gap two searches may choose otherwise, [B, T].

    A vector that is moved by δ turns its direction by at most 2δ/‖z‖, and a normalisation rounds by d + 4; of
    both, and of the codes, a difference of two squared distances takes four times as much. Each expands its
    distances to three terms and a dot product of d, of size 2.
    """
    width = latents.shape[1]
    turned = 2 * width**0.5 * apart / latents.norm(dim=1) + 2 * (width + 4) * EPS
    return 4 * turned + 8 * (width + 3) * EPS
