"""Codes that are given at construction, and codes that stay as they are while others learn."""

import abc
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.core.arguments.checks import check_tensor
from quantizers.core.codebook import check_codes, init_codes_
from quantizers.core.parallel import ProcessGroup
from quantizers.core.state.index_format import NAME as INDEX_FORMAT

MASK = "is_frozen"


class Given(NamedTuple):
    """What a table of codes was constructed with."""

    codes: Tensor | None = None  # [K, code_dim]
    mask: Tensor | None = None  # bool [K]


class GivenCodes(NearestCodeQuantizer):
    """A table of codes `embedding` [K, code_dim] that may be given, and of which some or all may stay.

    A constructor calls `_give` once its table exists; `reset_parameters` fills the table with `_first_codes_`.

    State with a mask: is_frozen [K], which codes stay. Loading a checkpoint that contains a mask sets the mask, so
    that a configuration need contain neither the codes nor the mask.
    """

    embedding: Tensor
    is_frozen: Tensor
    _given: Given = Given()

    @property
    def frozen_codes(self) -> Tensor | None:
        """See `LearnedCodes`: the mask [K] that the constructor or a checkpoint gave, or None."""
        return self._buffers.get(MASK)

    def _give(self, codebook: Tensor | None, frozen: bool | Tensor) -> None:
        """Keep what the constructor was given, for `reset_parameters`, and freeze what shall be frozen."""
        if codebook is not None:
            codebook = check_codes(codebook, self.codebook_size, self.code_dim).detach().clone()
        mask = check_mask(frozen, self.codebook_size) if isinstance(frozen, Tensor) else None
        self._given = Given(codebook, mask)
        if mask is not None:
            self._register_mask()
        elif frozen:
            self.freeze()

    def _register_mask(self) -> None:
        """Create the state that a mask needs, with no code frozen yet."""
        size, device = self.codebook_size, self.embedding.device
        self.register_buffer(MASK, torch.zeros(size, dtype=torch.bool, device=device))

    @torch.no_grad()
    def _first_codes_(self, codes: Tensor) -> Tensor:
        """Fill codes [K, code_dim] with those that were given, or draw them; fill the mask, if there is one."""
        given, mask = self._given
        if self.frozen_codes is not None:
            self.is_frozen.fill_(False) if mask is None else self.is_frozen.copy_(mask)
        return init_codes_(codes) if given is None else codes.copy_(given)

    @abc.abstractmethod
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]."""

    def _initialize_table(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Place the codes that are not frozen by k-means, as many centroids of z [N, code_dim] as there are."""
        if self.frozen_codes is None:
            self.set_codebook(kmeans(z, self.codebook_size, distance=self.distance, process_group=process_group))
            return
        learned = (~self.is_frozen).nonzero().flatten()
        if len(learned):
            codes = kmeans(z, len(learned), distance=self.distance, process_group=process_group)
            self.move_codes(learned, codes, torch.ones_like(codes[:, 0]))

    def _options_in_state(self) -> dict[str, Any]:
        return {"codebook": None, "codebook_size": self.codebook_size, "frozen": False}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + MASK in state_dict and self.frozen_codes is None:
            rule = self._buffers.pop(INDEX_FORMAT, None)
            self._register_mask()
            if rule is not None:  # the last buffer, as after construction
                self._buffers[INDEX_FORMAT] = rule
        super()._load_from_state_dict(state_dict, prefix, *args)


def size_of(taker: str, codebook: Tensor | None, codebook_size: int | None, name: str = "codebook") -> int:
    """K, of a tensor [K, ...] that is given, or of the option `codebook_size`.

    Raises: TypeError where there is neither, or another type; ValueError where they differ, and for a tensor of
        other than two axes.
    """
    if codebook is None:
        if codebook_size is None:
            raise TypeError(f"{taker} is missing codebook_size; it got no {name} either, expected one of the two")
        return codebook_size
    if check_tensor(name, codebook).dim() != 2 or not codebook.numel():
        raise ValueError(f"{name} has shape {tuple(codebook.shape)}, expected [K, C] with a code and a channel")
    if codebook_size not in (None, len(codebook)):
        raise ValueError(f"codebook_size is {codebook_size}, but {name} has {len(codebook)} rows")
    return len(codebook)


def check_mask(mask: Tensor, size: int) -> Tensor:
    """A copy of a mask of K codes.

    Raises: TypeError for another dtype than bool; ValueError for another shape, and for the meta device.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"frozen has dtype {mask.dtype}, expected torch.bool")
    if tuple(mask.shape) != (size,):
        raise ValueError(f"frozen has shape {tuple(mask.shape)}, expected {(size,)}, a bool for each code")
    if mask.is_meta:
        raise ValueError("frozen is on the meta device, expected a mask with values")
    return mask.clone()
