"""What each method is drawn with: options, and for a few methods the space that the plane lies in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from docs._pictures.planes import PLANE, Plane, two_roots_of_e8


@dataclass(frozen=True)
class Settings:
    """How to build and fit the quantizer of one picture.

    Args:
        options: of `quantizers.create`, beside `dim`.
        plane: the plane that is drawn, in the quantizer's space.
        steps: steps of Adam, in training mode, that reconstruct the grey points after `initialize_from`.
        code_steps: whether to draw how one training step moves the codes.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    plane: Plane = PLANE
    steps: int = 0
    code_steps: bool = True


TABLE = Settings({"codebook_size": 12})
LEVELS = Settings({"levels": [5, 5]})
BITS = Settings({"codebook_size": 4})
PRODUCT = Settings({"codebook_size": 4}, code_steps=False)

SETTINGS: dict[str, Settings] = {
    **dict.fromkeys(("vq", "ema_vq", "rotation_vq", "simvq", "affine_vq", "diveq", "nsvq"), TABLE),
    **dict.fromkeys(("ibq", "optvq", "gumbel", "random_projection", "bypass"), TABLE),
    **dict.fromkeys(("fsq", "dithered_fsq", "fsp"), LEVELS),
    **dict.fromkeys(("lfq", "bsq", "bernoulli"), BITS),
    **dict.fromkeys(("grouped", "multihead", "opq"), PRODUCT),
    "gaussian_quant": Settings({"codebook_size": 16}, steps=1000),
    "interpolated": Settings({"codebook_size": 12, "hardness": 0.5}),
    "lattice": Settings({"lattice": "e8"}, plane=two_roots_of_e8()),
    "multiscale": Settings({"codebook_size": 16}),
    "none": Settings(),
    "normalized_fsq": Settings({"levels": [5, 5]}, steps=300),
    "parallel": Settings({"codebook_size": 6}),
    "qinco": Settings({"codebook_size": 5, "num_quantizers": 2}, steps=300, code_steps=False),
    "residual": Settings({"codebook_size": 5, "num_quantizers": 2}, code_steps=False),
    "residual_fsq": Settings({"levels": [3, 3]}),
    "rotated": Settings({"quantizer": "fsq", "levels": [5, 5]}),
    "var": Settings({"codebook_size": 16}, steps=1000),
    "vqbridge": Settings({"codebook_size": 12}, steps=300),
}
"""Settings of the methods, by registered name."""


def settings_of(name: str) -> Settings:
    """The settings of a registered method; without an entry, those of a codebook of twelve codes."""
    return SETTINGS.get(name, TABLE)
