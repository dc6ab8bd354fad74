"""Moving unused codes between steps, together with their state in the optimizer."""

import abc
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.clustering.seeding import Group
from quantizers.composite.composed import outermost
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.parallel import ProcessGroup, Ranks, of_each_rank, total
from quantizers.core.wrappers import without_wrappers
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.training.optimizer_state import OptimizerState
from quantizers.training.tables import chosen_vectors, tables_of

LEAST_CHOICES = 10
"""How often a code with u = 1 is chosen within the memory of u, so that chance does not make it look unused."""

Places = list[tuple[Tensor, Tensor]]
"""For each place of a table in a composition: vectors [n, code_dim], and the indices [n] that they chose."""


class Choices(NamedTuple):
    """The vectors that chose from one table in one forward, on this rank."""

    z: Tensor
    """The vectors, [N, code_dim]."""
    indices: Tensor
    """The index that each chose, [N]."""
    places: Tensor
    """The number of the table's place (stage or scale) at which each chose, int64 [N]."""


class Replacement(abc.ABC):
    """Track the use of codes from step to step, and move the codes that are used too little.

        replacement = DeadCodeReplacement(model, optimizer)
        for x in data:
            ...
            optimizer.step()
            replaced = replacement.step()

    A code hook on each outermost quantizer stores the input and the indices of the last forward in training, which
    does not wait for the device. `step` projects the stored input with the current weights; a stage of a residual
    quantizer gets what the stages before it leave. Each stored forward is used once.

    The codes must be independent rows of a table (`Quantizer.has_table`): VectorQuantizer and its subclasses
    (rotation, DiVeQ, NSVQ, IBQ, OptVQ), EMAVectorQuantizer, and GumbelQuantizer with logits="distance", alone or
    inside other quantizers. A code of IBQ, which the largest product chooses, gets the vector's direction and the
    codes' mean length. The optimizer's state of a code changes with the code: moments shrink by the factor
    that is left of the old code, even if they are stored in eight bits or factored, see
    `training.optimizer_state`. State of an unknown kind is left unchanged, with one warning. The optimizer may be
    wrapped (accelerate, Lightning, ZeroRedundancyOptimizer).

    Data parallel: use is counted over all ranks of `process_group`, and vectors come from all of them, so that
    equal codes stay bit-equal. Every rank must call `step`, even after an empty batch or without a forward.
    Sharded parameters (FSDP) are not supported.

    Frozen codes (`Quantizer.freeze`) and their running use do not change until they are unfrozen. Codes that a
    mask freezes (`VectorQuantizer(..., frozen=mask)`) never move.

    Copies and pickles of the model carry no hooks: make a new replacement for them.

    Args:
        model: a module that contains such a quantizer, or such a quantizer; possibly in a wrapper.
        optimizer: the optimizer of the model's parameters. A warning says so if it does not have the codes, for
            example because it was made before `plug_in`.
        decay: γ in [0, 1) of the running use u. If n of N vectors choose a code, u ← γu + (1−γ) · K · n/N, which
            is 1 for all codes if they are used equally. For a shared codebook, n/N is the mean over its places
            (stages or scales), so that a scale of one vector per map counts as much as one of hundreds.
        process_group: "world" for all ranks, a `torch.distributed` group, or None for separate ranks.

    Raises: ValueError for a decay outside [0, 1) and for a model without such codes; TypeError for another kind of
        process_group.
    """

    initial_use: ClassVar[float]
    """The running use of a code at the beginning."""

    least_choices: ClassVar[float] = 0.0
    """How often a code with u = 1 is chosen, at least, within the memory of u; see `_decay_with`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        decay: float = 0.99,
        process_group: ProcessGroup = "world",
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay!r}, expected a number in [0, 1)")
        self.decay = decay
        self.optimizer = optimizer
        self._ranks = Ranks(process_group)
        self._tables = tables_of(model)
        self._states = OptimizerState()
        tables = {name: _table_parameters(quantizer) for name, quantizer in self._tables.items()}
        self._states.warn_of_unknown(optimizer, tables)
        self._use = {
            name: torch.full_like(quantizer.codebook[:, 0].detach(), self.initial_use)
            for name, quantizer in self._tables.items()
        }
        self._last = [(quantizer, StoreLastForward()) for quantizer in outermost(model).values()]
        self._handles = [quantizer.register_code_hook(last) for quantizer, last in self._last]

    @abc.abstractmethod
    def _replace(self, quantizer: Quantizer, use: Tensor, choices: Choices, group: Group) -> int:
        """Move codes of one table, and update their running use.

        Args:
            use: the running use of each code, [K], which changes where codes move.
            choices: the vectors of this rank, and what they chose.
            group: the ranks that must do the same.

        Returns: the number of codes that have been replaced.
        """

    @torch.no_grad()
    def step(self) -> int:
        """Move codes according to the last forward in training. Returns: the number of codes that have moved."""
        moved, choices = 0, self._last_choices()
        for name, quantizer in self._tables.items():
            if quantizer.frozen:
                continue
            with without_autocast(quantizer.codebook.device):
                moved += self._step(name, quantizer, choices.get(quantizer, []))
        return moved

    def _last_choices(self) -> dict[LearnedCodes, Places]:
        """The vectors and indices of each table in the last forward in training."""
        choices: dict[LearnedCodes, Places] = {}
        for quantizer, last in self._last:
            if last.stored is None:
                continue
            event, last.stored = last.stored, None
            for table, z, chosen in chosen_vectors(quantizer, event):
                choices.setdefault(table, []).append((z, chosen))
        return choices

    def _step(self, name: str, quantizer: Quantizer, places: Places) -> int:
        group, codes = self._ranks.group(), quantizer.codebook.detach()
        choices = _joined(places, codes)
        use = self._use[name] = self._use[name].to(codes)
        counts = _counts(choices, len(codes), group)
        if not len(counts):
            return 0
        vectors = counts.sum(-1, keepdim=True)
        decay = self._decay_with(len(counts) * int(vectors.min()), len(codes))
        shares = (counts.to(use) / vectors).mean(0)
        use.copy_(decay * use + (1 - decay) * len(codes) * shares)
        return self._replace(quantizer, use, choices, group)

    def _decay_with(self, vectors: int, codes: int) -> float:
        """The decay of u in a step with N vectors on all ranks and K codes.

        With decay γ, u remembers 1/(1−γ) steps, in which a code with u = 1 is chosen N/K · 1/(1−γ) times. If that
        is less than `least_choices`, u remembers more steps, up to so many choices, but not more choices than with
        N = K: γ becomes γᵉ with an exponent e ≤ 1. N ≥ K vectors leave γ as it is.

        Args: vectors: N; for a table with several places, the smallest number at one of them times the number of
            places, because a code with u = 1 that serves this place alone is chosen by N/K of its vectors.
        """
        steps = 1 / (1 - self.decay)
        expected = steps * vectors / codes
        remembered = max(expected, min(steps, self.least_choices))
        return float(self.decay ** (expected / remembered))

    def _update_optimizer(self, quantizer: Quantizer, positions: Tensor, shares: Tensor) -> None:
        """Update the optimizer's state of codes at `positions` [n], which have moved by `shares` [n]."""
        for parameter in _table_parameters(quantizer):
            self._states.follow(self.optimizer, parameter, positions, shares)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running use [K] of each table, by its name in the model without wrappers."""
        return {name: use.clone() for name, use in self._use.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` of the same model, whatever wraps either of them.

        Raises: ValueError for other names or sizes than this model's.
        """
        plain = {without_wrappers(name): use for name, use in state.items()}
        own = {name: without_wrappers(name) for name in self._use}
        if len(plain) < len(state) or len(set(own.values())) < len(
            own
        ):  # names that differ only in those of wrappers
            plain, own = state, {name: name for name in own}
        sizes = {name: len(use) for name, use in plain.items()}
        expected = {own[name]: len(use) for name, use in self._use.items()}
        if sizes != expected:
            raise ValueError(f"state has codebooks {sizes}, expected {expected}")
        self._use = {name: plain[own[name]].to(use, copy=True) for name, use in self._use.items()}

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        for _, last in self._last:
            last.stored = None


def _joined(places: Places, codes: Tensor) -> Choices:
    """The vectors and indices of all places, and the number of each one's place."""
    numbers = [torch.full_like(indices, number) for number, (_, indices) in enumerate(places)]
    none = codes.new_zeros(0, dtype=torch.int64)
    return Choices(
        torch.cat([codes[:0], *(z.to(codes.dtype) for z, _ in places)]),
        torch.cat([none, *(indices for _, indices in places)]),
        torch.cat([none, *numbers]),
    )


def _counts(choices: Choices, codes: int, group: Group) -> Tensor:
    """How often each code was chosen at each place that has any vector, over all ranks: int64 [places, K]."""
    number = len(torch.bincount(choices.places))
    most = int(of_each_rank(group, choices.places.new_tensor([number])).max())  # a rank may have had no forward
    flat = torch.bincount(choices.places * codes + choices.indices, minlength=most * codes)
    (counts,) = total(group, flat)
    by_place = counts.view(most, codes)
    return by_place[by_place.any(-1)]


def learned(quantizer: Quantizer) -> Tensor:
    """The codes that may move, bool [K]: all but those that a mask freezes."""
    frozen = quantizer.frozen_codes
    return torch.ones_like(quantizer.codebook[:, 0], dtype=torch.bool) if frozen is None else ~frozen


def _table_parameters(quantizer: Quantizer) -> list[nn.Parameter]:
    """The parameter that stores the codes, even behind a parametrization; none if the codes are averages."""
    shape = quantizer.codebook.shape
    return [parameter for parameter in quantizer._code_parameters() if parameter.shape == shape]


class StoreLastForward:
    """A code hook that stores the last forward in training."""

    def __init__(self) -> None:
        self.stored: ForwardEvent | None = None

    def __call__(self, quantizer: Quantizer, event: ForwardEvent) -> None:
        if event.by_forward and quantizer.training:
            self.stored = event.detached()
