"""This library's search on a CPU, by how it may rule out codes and what happens to the codebook between runs."""

import time

import torch
from torch import Tensor

from benchmarks.kernels.motion import Moving, step_length
from benchmarks.kernels.rivals import Rival, WithSetup, Work
from quantizers.kernels.nearest.cached import codebooks
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.nearest.pruning import use_pruning

ALL_CODES = "ours, all codes"
EVALUATION = "ours, evaluation"
TRAINING = "ours, training"
FIRST = "ours, first call"
LEAST_SETTLING, MOST_SETTLING = 6, 40  # searches in which the library finds out whether to rule out codes
SETTLING_S = 0.5  # after which there are no more than the least
RULED_OUT = 0.95  # share below which codes were ruled out; a failed attempt on some of the vectors leaves more


def rules_out(share: float | None) -> bool:
    return share is not None and share < RULED_OUT


class Search:
    """A search in one mode of `use_pruning`.

    share  of (vector, leaf) pairs that the last run scored
    """

    def __init__(self, x: Tensor, codebook: Tensor, mode: str) -> None:
        self.x, self.codebook, self.mode = x, codebook, mode
        self.share: float | None = None

    def __call__(self) -> tuple[Tensor, ...]:
        with use_pruning(self.mode) as work:
            indices, distance = nearest_code(self.x[None], self.codebook[None])
        self.share = work.share
        return indices[0], distance[0]

    @property
    def rules_out(self) -> bool:
        return rules_out(self.share)

    def settle(self) -> None:
        """Search until the library rules out codes, or has not for long. The first searches of a codebook compare
        all codes."""
        end = time.monotonic() + SETTLING_S
        for i in range(MOST_SETTLING):
            self()
            if self.rules_out or (i >= LEAST_SETTLING and time.monotonic() > end):
                break
        self()  # the one before may have been partly an attempt

    def recall(self) -> None:
        """Search once. If the library has forgotten the codebook because of others, settle again."""
        ruled_out = self.rules_out
        self()
        if ruled_out and not self.rules_out:
            self.settle()


def in_order(codebook: Tensor, seed: int) -> Tensor:
    """Return a copy of the codes in another order, so that the library does not take the codebook of one rival for
    that of another, moved a little."""
    return codebook[torch.randperm(len(codebook), generator=torch.Generator().manual_seed(seed))]


def prepare_all_codes(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the search that compares every vector with every code, while the codebook moves."""
    codes = in_order(codebook, 1)
    return WithSetup(Moving(codes, step_length(x, codes)).step, Search(x, codes, "never"))


def prepare_evaluation(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the search of a codebook that stays."""
    search = Search(x, in_order(codebook, 2), "auto")
    search.settle()
    return WithSetup(search.recall, search)


def prepare_training(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the search of a codebook that moves before each run but the first."""
    codes = in_order(codebook, 3)
    search, moving = Search(x, codes, "auto"), Moving(codes, step_length(x, codes))
    search.settle()

    def setup() -> None:
        search.recall()
        moving.step()

    return WithSetup(setup, search)


def prepare_first(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the search of a codebook that the library has never seen, with everything that later ones reuse."""
    return WithSetup(codebooks.clear, Search(x, codebook.clone(), "always"))


PRUNED = (
    Rival(ALL_CODES, prepare_all_codes, against=ALL_CODES, devices=("cpu",)),
    Rival(EVALUATION, prepare_evaluation, against=ALL_CODES, devices=("cpu",)),
    Rival(TRAINING, prepare_training, against=ALL_CODES, devices=("cpu",)),
)
FIRST_CALL = Rival(
    FIRST, prepare_first, against=ALL_CODES, devices=("cpu",)
)  # timed apart: it clears what all share
