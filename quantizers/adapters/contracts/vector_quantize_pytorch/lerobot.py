"""ResidualVQ of LeRobot's VQ-BeT, a copy of an older version of vector-quantize-pytorch."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.adapters.contracts.vector_quantize_pytorch.residual_vq_older import ResidualVQOlderAdapter
from quantizers.core.base import Quantizer


class LeRobotAdapter(ResidualVQOlderAdapter):
    """Replaces ResidualVQ of LeRobot (main branch of August 2026; tested with a stand-in), which quantizes the
    actions of VQ-BeT.

    x [B, N, dim] → (quantized [B, N, dim], indices [B, N, q], losses [1, q]), as in
    "vector_quantize_pytorch_residual_older". Codes are looked up by another name, and at the end of its first
    phase LeRobot calls `freeze_codebook.fill_(True)`, which freezes the codes of the new quantizer. A checkpoint
    tells whether they are frozen.

    Source: Lee et al.: Behavior Generation with Latent Actions, 2024 (arXiv 2403.03181);
    `lerobot/policies/vqbet/vqbet_utils.py`.
    """

    contract: ClassVar[str] = "lerobot"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVQ",)
    _lookup: ClassVar[str] = "get_codebook_vector_from_indices"

    codes_are_frozen: Tensor
    """Whether the codes are frozen, [] bool, for checkpoints."""

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        super().__init__(quantizer, original)
        self.register_buffer("codes_are_frozen", torch.tensor(False))
        frozen = getattr(original, "freeze_codebook", None)
        if frozen is not None and not frozen.is_meta and frozen:
            self.freeze_codebook.fill_(True)

    def get_codebook_vector_from_indices(self, indices: Tensor) -> Tensor:
        """The codes of each stage: see `get_codes_from_indices`."""
        return self.get_codes_from_indices(indices)

    @property
    def freeze_codebook(self) -> "FreezeSwitch":
        """Whether the codes stay unchanged in training, with the method by which LeRobot sets it."""
        return FreezeSwitch(self)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if not self.codes_are_frozen.is_meta:
            self.freeze_codebook.fill_(bool(self.codes_are_frozen))


class FreezeSwitch:
    """Acts like LeRobot's buffer `freeze_codebook`: freezes the codes of an adapter, or lets them learn."""

    def __init__(self, adapter: LeRobotAdapter) -> None:
        self._adapter = adapter

    def fill_(self, value: bool) -> Self:
        """Freeze the codes, or let them learn again. Returns: itself."""
        self._adapter.codes_are_frozen.fill_(value)
        quantizer = self._adapter.quantizer
        if bool(value) != quantizer.frozen:
            _ = quantizer.freeze() if value else quantizer.unfreeze()
        return self

    def __bool__(self) -> bool:
        return bool(self._adapter.quantizer.frozen)
