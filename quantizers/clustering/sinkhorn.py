"""Capacities by entropic optimal transport: Sinkhorn's plan, rounded to one code per vector."""

import torch
from torch import Tensor

from quantizers.clustering.costs import Costs
from quantizers.clustering.places import Places
from quantizers.kernels.transport.reference import sinkhorn_potentials

TEMPERATURE = 0.02  # of the plan, relative to the difference between random and nearest codes
ITERATIONS = 100
FLOAT64 = torch.finfo(torch.float64)


def transported(costs: Costs, capacities: Tensor, smallest: float) -> Places:
    """Give every vector a place according to the entropic transport plan with columns ∝ capacities.

    Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NeurIPS 2013. The plan is p(k|i) =
    softmax_k(v_k − ‖xᵢ − eₖ‖²/T); 100 iterations choose the potentials v, by which code k gets about c_k/Σc of the
    vectors. The temperature T is 0.02 times the difference between the mean squared distances to all codes and to
    the nearest ones, but at least what they are rounded by: if all codes are equally near, T = 0 would give NaN.

    Rounding is deferred acceptance (Gale and Shapley, "College Admissions and the Stability of Marriage", 1962).
    Each vector asks for the code of its largest share p(k|i), a code keeps the c_k vectors of the largest shares,
    and a rejected vector asks for its next code. No vector and code would then both rather have each other. Totals
    are not bounded: they grow with T, and with the mass that the iterations leave at the wrong codes.

    Args:
        costs: of N vectors and K codes. capacities: [K] int64, ≥ 1, with Σc ≥ N.
        smallest: the mean squared distance to the nearest code, in the units of `costs`.
    """
    x = costs.rows(torch.arange(costs.x.shape[0], device=costs.x.device))
    lengths = x.square().sum(-1)
    anywhere = lengths.mean() + costs.norms.mean() - 2 * x.mean(0) @ costs.codes.mean(0)
    rounding = float(lengths.max() + costs.norms.max()) * FLOAT64.eps
    temperature = max(TEMPERATURE * (float(anywhere) - smallest), rounding, FLOAT64.tiny)
    keys, bias = 2 / temperature * costs.codes, -costs.norms / temperature
    everyone = torch.ones_like(x[:, 0], dtype=torch.bool)
    bias = bias + sinkhorn_potentials(x, keys, bias, everyone, ITERATIONS, capacities.double() / capacities.sum())
    places = Places(x.shape[0], capacities, -torch.inf)
    while (waiting := places.waiting()).shape[0]:
        asked = [_asked(torch.addmm(bias, x[part], keys.T), places) for part in costs.blocks(waiting)]
        codes, shares = (torch.cat(each) for each in zip(*asked, strict=True))
        places.accept(waiting, codes, shares)
    return places


def _asked(logits: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """The code [n] of the largest share among those that would accept it, and the logarithm of this share [n]."""
    shares = logits.log_softmax(-1)
    best, codes = shares.masked_fill(shares <= places.thresholds, -torch.inf).max(-1)
    return codes, best
