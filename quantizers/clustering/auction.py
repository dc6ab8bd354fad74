"""The ε-auction: vectors bid for the places of codes."""

import torch
from torch import Tensor

from quantizers.clustering.costs import Costs
from quantizers.clustering.places import Places

ROUNDS = 1000  # the most rounds; see `auction`
LEFT = 1 / 4  # bidders per code that end the auction


def auction(costs: Costs, capacities: Tensor, epsilon: float) -> Places:
    """Let vectors bid for places until few have none; each placed vector is then within ε of its best offer.

    Bertsekas, "The Auction Algorithm: A Distributed Relaxation Method for the Assignment Problem", Annals of
    Operations Research 14, 1988; with several equal places per code, Bertsekas and Castañon, "The Auction
    Algorithm for the Transportation Problem", Annals of Operations Research 20, 1989. In each round, every vector
    i without a place bids for the code k with the smallest c_ik + p_k. It bids the price at which the code of the
    second smallest sum, l, would be better by ε:

        bid = p_k + (c_il + p_l) − (c_ik + p_k) + ε.

    A code keeps its highest bids, and its price p_k is the lowest bid that it keeps, or 0 while the code has free
    places. Prices never fall, and the price of a code is at most the bid of each of its vectors, so that

        c_ik + p_k ≤ min_l (c_il + p_l) + ε                                                            (ε-CS)

    for every placed vector. Vectors that all want the same few places raise the prices in steps of little more
    than ε, in up to N · (range of the costs)/ε bids. The auction therefore stops when no more than a quarter as
    many vectors as there are codes wait, or after `ROUNDS` rounds; `place_remaining` places the vectors that are
    left.

    Args:
        costs: of N vectors and K ≥ 2 codes. capacities: [K] int64, ≥ 1. epsilon: ε ≥ 0.
    """
    places = Places(costs.x.shape[0], capacities, 0.0)
    for _ in range(ROUNDS):
        waiting = places.waiting()
        if waiting.shape[0] <= LEFT * capacities.shape[0]:
            break
        bids = [_bids(costs.at(part), places.thresholds, epsilon) for part in costs.blocks(waiting)]
        codes, offers = (torch.cat(each) for each in zip(*bids, strict=True))
        places.accept(waiting, codes, offers)
    return places


def _bids(costs: Tensor, prices: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The code [n] that each vector wants most, and its bid [n]."""
    totals = costs + prices
    codes = totals.argmin(-1, keepdim=True)
    second = totals.scatter(1, codes, torch.inf).amin(-1, keepdim=True)
    return codes[:, 0], (second - costs.gather(1, codes) + epsilon)[:, 0]
