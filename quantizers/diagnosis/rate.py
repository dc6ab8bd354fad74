"""The error that a number of bits can leave: the rate-distortion function of Gaussian vectors."""

import torch
from torch import Tensor


def attainable_share(vectors: Tensor, bits: float) -> float:
    """The share of the variance that remains at best if `bits` describe a Gaussian vector.

    The Gaussian vectors have the covariance of `vectors` [n, D]. No other vectors with this covariance are harder
    to describe. Reverse water-filling (Cover and Thomas, Elements of Information Theory, section 10.3.3): with the
    variances λ_i along the principal axes,

        share = Σ min(θ, λ_i) / Σ λ_i,  where bits = Σ max(0, log₂(λ_i / θ) / 2)

    Codes for single vectors cannot reach it; they come the closer the more channels there are.
    """
    x = vectors.double()
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    values = values[values > values.sum() * 1e-12]
    if not len(values) or bits <= 0:
        return 1.0
    logs = values.log2()  # descending
    counts = torch.arange(1, len(values) + 1, device="cpu")
    levels = (logs.cumsum(0) - 2 * bits) / counts  # log₂ θ, if the first axes get all the bits
    used = max(1, int((levels < logs).sum()))  # levels[i] < logs[i] holds for the first axes and for no others
    level = 2.0 ** levels[used - 1]
    return float(values.clamp(max=float(level)).sum() / values.sum())
