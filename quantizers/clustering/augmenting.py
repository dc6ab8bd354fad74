"""Shortest augmenting paths between codes with capacities: place the vectors that an auction leaves over."""

import torch
from torch import Tensor

from quantizers.clustering.costs import Costs
from quantizers.clustering.places import Places


def place_remaining(costs: Costs, places: Places) -> None:
    """Give the waiting vectors places, in place: for each, the cheapest chain of moves to a free place.

    Successive shortest paths with prices (Edmonds and Karp, "Theoretical Improvements in Algorithmic Efficiency
    for Network Flow Problems", Journal of the ACM 19, 1972) on the graph of the codes: the edge from code j to
    code l is the vector of j for which the move to l costs least. Where a vector's code is not its best at the
    current prices, but worse by up to ε (ε-CS of `auction`), its present place counts as cheaper by this
    difference until the vector moves. With costs lowered in this way, each by at most ε, every step keeps the
    assignment optimal.

    Memory beyond the inputs is O(N + K²). A path takes a few passes over at most K² moves, and the search for new
    moves one over the vectors of its codes.

    Args:
        costs: of the vectors and codes.
        places: placed vectors that satisfy ε-CS with the prices `places.thresholds`, which are 0 for codes with
            free places. There are at least as many free places as waiting vectors.
    """
    waiting = places.waiting().tolist()
    if waiting:
        moves = Moves(costs, places)
        for vector in waiting:
            moves.place(vector)


class Moves:
    """The cheapest move from each code to each other one, and the vector that makes it."""

    def __init__(self, costs: Costs, places: Places) -> None:
        self.costs, self.places, self.prices = costs, places, places.thresholds
        self.used = torch.bincount(places.indices[places.indices >= 0], minlength=self.prices.shape[0])
        self.present = self._present()  # [N] float64, what the present place of each vector counts as
        self.cheapest = self.prices.new_full((self.prices.shape[0],) * 2, torch.inf)  # [K, K], from row to column
        self.movers = torch.full_like(self.cheapest, -1, dtype=torch.int64)
        everywhere = torch.arange(self.prices.shape[0], device=self.prices.device)
        for code in range(self.prices.shape[0]):
            self._search(code, everywhere)

    def place(self, vector: int) -> None:
        """Give a waiting vector a place."""
        end, before = self._path(vector)
        steps = []
        while (source := int(before[end])) >= 0:
            steps.append((int(self.movers[source, end]), source, end))
            end = source
        self._enter(vector, end)
        for mover, source, target in steps:
            self._leave(mover, source, target)

    def _present(self) -> Tensor:
        present = torch.zeros_like(self.places.offers)
        placed = (self.places.indices >= 0).nonzero().flatten()
        for part in self.costs.blocks(placed):
            best = (self.costs.at(part) + self.prices).amin(-1)
            present[part] = best - self.prices[self.places.indices[part]]
        return present

    def _path(self, vector: int) -> tuple[int, Tensor]:
        """The code with a free place at the end of the cheapest chain, and the code before each code [K] in it.

        −1 is before the first code, which the vector itself enters. Raises the prices so that the vectors of the
        chain have codes of the smallest cost + price after their moves, as all others have.
        """
        full = self.used >= self.places.capacities
        lengths = self.costs.at(self._alone(vector))[0] + self.prices
        before, changed = torch.full_like(self.used, -1), full
        while True:
            limit = lengths.masked_fill(full, torch.inf).amin()
            sources = (changed & full & (lengths < limit)).nonzero().flatten()
            if not sources.shape[0]:
                break
            # Below 0 by rounding only. Without a negative length there is no cycle in `before`.
            reduced = (self.cheapest[sources] + self.prices - self.prices[sources, None]).clamp_(min=0)
            shortest, which = (reduced + lengths[sources, None]).min(0)
            changed = (shortest < lengths) & (shortest < limit)
            lengths, before = shortest.where(changed, lengths), sources[which].where(changed, before)
        end = lengths.masked_fill(full, torch.inf).argmin()
        self.prices += (lengths[end] - lengths).clamp_(min=0)
        self.used[end] += 1
        return int(end), before

    def _enter(self, vector: int, code: int) -> None:
        """Put a vector at a code, and compare its moves to other codes with the cheapest from there."""
        costs = self.costs.at(self._alone(vector))[0]
        self.places.indices[vector], self.present[vector] = code, costs[code]
        row = costs - costs[code]
        cheaper = row < self.cheapest[code]
        self.cheapest[code] = row.where(cheaper, self.cheapest[code])
        self.movers[code].masked_fill_(cheaper, vector)

    def _leave(self, vector: int, source: int, target: int) -> None:
        """Move a vector from one code to another, and search for moves that it no longer makes."""
        self._enter(vector, target)
        self._search(source, (self.movers[source] == vector).nonzero().flatten())

    def _search(self, code: int, targets: Tensor) -> None:
        """Find the cheapest moves from a code to some others."""
        if not targets.shape[0]:
            return
        cheapest, movers = self.prices.new_full(targets.shape, torch.inf), torch.full_like(targets, -1)
        for part in self.costs.blocks((self.places.indices == code).nonzero().flatten()):
            if part.shape[0]:
                found, which = (self.costs.at(part, targets) - self.present[part, None]).min(0)
                cheaper = found < cheapest
                cheapest, movers = found.where(cheaper, cheapest), part[which].where(cheaper, movers)
        self.cheapest[code, targets], self.movers[code, targets] = cheapest, movers

    def _alone(self, vector: int) -> Tensor:
        return self.used.new_tensor([vector])
