"""Codes that are not used move to vectors of the batch: between steps, and with their state in the optimizer."""

import abc
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.clustering.seeding import Group
from quantizers.composite.composed import outermost
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.layout import to_rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.parallel import ProcessGroup, Ranks, of_each_rank, total
from quantizers.core.wrappers import named_modules, without_wrappers
from quantizers.kernels.dispatch import without_autocast
from quantizers.training.optimizer_state import OptimizerState

Seen = list[tuple[Tensor, Tensor]]  # vectors [N, code_dim] and indices [N]


class Replacement(abc.ABC):
    """What follows the use of codes from step to step, and moves those that need it to vectors of the batch.

        replacement = DeadCodeReplacement(model, optimizer)
        for x in data:
            ...
            optimizer.step()
            replaced = replacement.step()

    A hook of each outermost quantizer of the model keeps what its last forward in training got; nothing in a
    forward waits for anything. `step` looks at these vectors, as they are with the weights of now: a stage of a
    residual has those that the stages before it leave. What it takes, it takes once.

    Codes that take part are rows of a table that vectors choose from: VectorQuantizer and what derives from it
    (rotation, DiVeQ, NSVQ, IBQ, OptVQ), EMAVectorQuantizer, and GumbelQuantizer with logits="distance", by
    themselves or within others. The averages of an EMA code move with it, to those of one vector seen. What the
    optimizer keeps for a code moves with it too: moments shrink with what is left of the old code, also such in
    eight bits and factored ones, see `training.optimizer_state`. A state of an unknown kind is left as it is,
    with one warning. The optimizer may be wrapped (accelerate, Lightning, ZeroRedundancyOptimizer).

    Data parallel: use is counted over all ranks of `process_group`, and candidates are those of all, so that equal
    codes stay bit-equal. Each of them must call `step`, if after a forward of an empty batch or of none. Sharded
    parameters (FSDP) cannot take part.

    Frozen codes (`Quantizer.freeze`) stay, and their running use with them, until they are unfrozen.

    A copy of the model, or one that was pickled, keeps nothing, until another is attached.

    Args:
        model: with such a quantizer in it, or one, perhaps wrapped. optimizer: of its parameters; a warning says
            so where it does not have the codes, as one that was made before `plug_in`.
        decay: γ in [0, 1) of the running use, which is u ← γu + (1−γ) · K · n/N for a code that n of N vectors
            chose: 1 for all codes if they are used equally.
        process_group: "world" for all ranks, a `torch.distributed` group, or None for each rank by itself.

    Raises: ValueError for a decay outside [0, 1) and a model without such codes; TypeError for another
    process_group.
    """

    initial_use: ClassVar[float]
    """The running use that a code begins with."""

    moved_use: ClassVar[float | None] = None
    """That of a code that has moved; None where it stays what it is."""

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
        outer = outermost(model)
        inside = {part for quantizer in outer.values() for part in quantizer.modules()}
        self._tables = {
            name: part
            for name, part in named_modules(model)
            if part in inside and isinstance(part, Quantizer) and part.has_table
        }
        if not self._tables:
            raise ValueError(
                f"model is {type(model).__name__}, which holds no codes to replace, expected a VectorQuantizer, "
                "an EMAVectorQuantizer or a GumbelQuantizer with logits='distance'"
            )
        self._states = OptimizerState()
        self._states.warn_of_unknown(optimizer, {name: _of_codes(part) for name, part in self._tables.items()})
        self._use = {
            name: torch.full_like(part.codebook[:, 0].detach(), self.initial_use)
            for name, part in self._tables.items()
        }
        self._last = [(quantizer, LastForward()) for quantizer in outer.values()]
        self._handles = [quantizer.register_code_hook(last) for quantizer, last in self._last]

    @abc.abstractmethod
    def _shares(self, use: Tensor) -> Tensor:
        """How much of the way to a vector each code goes, [K] in [0, 1], by its running use."""

    @torch.no_grad()
    def step(self) -> int:
        """Move codes to vectors of the last forward in training. Returns: how many codes have moved."""
        moved, seen = 0, self._seen()
        for name, part in self._tables.items():
            if part.frozen:
                continue
            with without_autocast(part.codebook.device):
                moved += self._step(name, part, seen.get(part, []))
        return moved

    def _seen(self) -> dict[LearnedCodes, Seen]:
        """What each table's quantizer met in the last forward in training."""
        seen: dict[LearnedCodes, Seen] = {}
        for quantizer, last in self._last:
            if last.held is None:
                continue
            x, mask, indices = last.held
            last.held = None
            rows = to_rows(x, mask, quantizer.dim, quantizer.channel_dim)
            with without_autocast(x.device):
                flat = indices.reshape(-1, indices.shape[-1]) if quantizer.composed else indices.reshape(-1)
                for part, z, chosen in quantizer.learned_rows(rows, flat):
                    seen.setdefault(part, []).append((z[chosen >= 0], chosen[chosen >= 0]))
        return seen

    def _step(self, name: str, part: Quantizer, seen: Seen) -> int:
        group, codes = self._ranks.group(), part.codebook.detach()
        z = torch.cat([codes[:0], *(vectors.to(codes.dtype) for vectors, _ in seen)])
        chosen = torch.cat([codes.new_zeros(0, dtype=torch.int64), *(indices for _, indices in seen)])
        use = self._use[name] = self._use[name].to(codes)
        (counts,) = total(group, torch.bincount(chosen, minlength=len(codes)))
        if not counts.any():
            return 0
        use.copy_(self.decay * use + (1 - self.decay) * len(codes) * counts.to(use) / counts.sum())
        shares = self._shares(use)
        moving = use.argsort(stable=True)  # the least used first, where vectors are too few
        moving = moving[shares[moving] > 0]
        if not len(moving):
            return 0
        vectors = _drawn(z, len(moving), group)
        moving = moving[: len(vectors)]
        self._move(part, moving, vectors, shares[moving])
        if self.moved_use is not None:
            use[moving] = self.moved_use
        return len(moving)

    def _move(self, part: Quantizer, places: Tensor, vectors: Tensor, shares: Tensor) -> None:
        part.move_codes(places, vectors, shares)
        for parameter in _of_codes(part):
            self._states.follow(self.optimizer, parameter, places, shares)

    def state_dict(self) -> dict[str, Tensor]:
        """The running use [K] of each table, by its name in the model, whatever wraps that."""
        return {name: use.clone() for name, use in self._use.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state_dict`, of this model or one that is wrapped otherwise.

        Raises: ValueError where its names or sizes are not this model's.
        """
        plain = {without_wrappers(name): use for name, use in state.items()}
        own = {name: without_wrappers(name) for name in self._use}
        if len(plain) < len(state) or len(set(own.values())) < len(own):  # names that only a wrapper's tells apart
            plain, own = state, {name: name for name in own}
        sizes = {name: len(use) for name, use in plain.items()}
        expected = {own[name]: len(use) for name, use in self._use.items()}
        if sizes != expected:
            raise ValueError(f"state is of codebooks {sizes}, expected {expected}")
        self._use = {name: plain[own[name]].to(use, copy=True) for name, use in self._use.items()}

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        for _, last in self._last:
            last.held = None


def _of_codes(part: Quantizer) -> list[nn.Parameter]:
    """The parameter that is a table's codes, also behind a parametrization; none where they are averages."""
    return [parameter for parameter in part._code_parameters() if parameter.shape == part.codebook.shape]


class LastForward:
    """A code hook that keeps x, mask and indices of the last forward in training."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor | None, Tensor] | None = None

    def __call__(self, quantizer: Quantizer, event: ForwardEvent) -> None:
        if event.by_forward and quantizer.training:
            self.held = event.x.detach(), event.mask, event.indices


def _drawn(z: Tensor, count: int, group: Group) -> Tensor:
    """Up to `count` distinct vectors, at random from `count` candidates of each rank, the same on all ranks."""
    own = z[torch.randperm(len(z), device=z.device)[:count]]
    offered = z.new_zeros(count, z.shape[1] + 1)
    offered[: len(own), :-1], offered[: len(own), -1] = own, 1
    seed = torch.randint(2**30, (1,), device=z.device)
    seeds = of_each_rank(group, seed).flatten()
    every = of_each_rank(group, offered).flatten(0, 1)
    distinct = torch.unique(every[every[:, -1] > 0][:, :-1], dim=0)
    draws = torch.Generator("cpu").manual_seed(int(seeds[0]))
    order = torch.randperm(len(distinct), generator=draws, device="cpu")
    drawn: Tensor = distinct[order[:count].to(z.device)]
    return drawn
