"""Every registered quantizer, and the settings of each that change what it computes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import EMAVectorQuantizer, NormalizedFSQ, QINCo, Quantizer, RotatedQuantizer, VQBridge
from quantizers.codebooks.random_projection import FixedProjection
from quantizers.composite.composed import ComposedQuantizer
from quantizers.core.projection import Projection
from quantizers.core.registry import parameters
from quantizers.scalar.bits import BinaryQuantizer
from quantizers.training.regularizers import Entropy, Orthogonality, Wasserstein

DIM = 4
SIZE = 32

SMALL: dict[str, dict[str, Any]] = {
    "residual": {"num_quantizers": 2},
    "qinco": {"num_quantizers": 2, "hidden_dim": 8, "blocks": 1},
    "vqbridge": {"width": 16, "blocks": 1},
}
"""Sizes that change no law and cost time."""


@dataclass(frozen=True)
class Case:
    """A quantizer to build. What a test expects of it follows from its properties, never from its name."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    foundation: bool = field(default=False, compare=False)
    """Whether other methods are built on its operations. `make test` runs every test on these cases; some tests
    leave the other cases to `make fuzz`, see the marks `foundations` and `methods`."""

    def __reduce__(self) -> tuple[Any, ...]:  # other processes build a sample of their own
        return Case, (self.name, self.options, self.foundation)

    def build(self, **options: Any) -> Quantizer:
        own = {  # each quantizer gets modules of its own
            name: value if isinstance(value, Tensor) else copy.deepcopy(value)
            for name, value in self.options.items()
        }
        return quantizers.create(
            self.name, **{"dim": DIM, "codebook_size": SIZE, **SMALL.get(self.name, {}), **own, **options}
        )

    @cached_property
    def sample(self) -> Quantizer:
        """A quantizer of this case, to read properties from and not to be run. Draws no random numbers."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return self.build()

    @property
    def is_variation(self) -> bool:
        """Whether options change what the method computes."""
        return bool(self.options)

    @property
    def has_codes(self) -> bool:
        """Whether there is a codebook: everywhere but in the unquantized baseline."""
        return self.sample.codebook_size > 0

    @property
    def trains_on_codes(self) -> bool:
        """Whether the value in training is a code."""
        return self.has_codes and self.sample.value_is_code

    @property
    def has_tables(self) -> bool:
        """Whether codes of it, or of a quantizer inside it, can be moved one by one, and are not frozen."""
        inside = [module for module in self.sample.modules() if isinstance(module, Quantizer)]
        return any(module.has_table and not module.frozen for module in inside)

    @property
    def learns_all_codes(self) -> bool:
        """Whether no code is frozen."""
        return not self.sample.frozen and self.sample.frozen_codes is None

    @property
    def takes_sizes(self) -> bool:
        """Whether it takes any `codebook_size`: no codes are given that determine it."""
        return not any(isinstance(value, Tensor) for value in self.options.values())

    @property
    def distance(self) -> str | None:
        """The distance of the search; None where there is none, or only inside components."""
        return getattr(self.sample, "distance", None)

    @property
    def choice(self) -> str | None:
        """The rule by which evaluation chooses a code, as checkpoints record it: "nearest", "logits", "product".

        None for implicit grids and compositions.
        """
        return self.sample._index_rule.get("choice")

    @property
    def takes_levels(self) -> bool:
        """Whether `levels` can replace `codebook_size`."""
        return "levels" in parameters(self.name)

    @property
    def moving_averages(self) -> int:
        """How many quantizers in it have moving averages, which a forward in training updates."""
        averages = (EMAVectorQuantizer, NormalizedFSQ)
        return sum(isinstance(module, averages) and module.observes for module in self.sample.modules())

    @property
    def shared_losses(self) -> int:
        """How many of its losses are of the batch of all ranks: one all-reduce in forward, one in backward."""
        return sum(
            isinstance(module, BinaryQuantizer) and module.process_group is not None
            for module in self.sample.modules()
        )

    @property
    def multiplies(self) -> bool:
        """Whether vectors go through a matrix product, which may round differently among other rows."""
        inside = [module for module in self.sample.modules() if isinstance(module, Quantizer)]
        projects = any(not isinstance(module.project_in, nn.Identity) for module in inside)
        return projects or isinstance(self.sample.evaluated, QINCo)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={_label(v)}" for k, v in self.options.items())])


def _label(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", str(value))


def halved(z: Tensor, codes: Tensor) -> Tensor:
    """A user's gradient function, whose value is not the code and whose gradient is half."""
    return z / 2


def _bypassed(dim: int, codebook_size: int) -> Quantizer:
    """A stage that half of the samples bypass."""
    return quantizers.create("bypass", dim, codebook_size, quantizer="ema_vq", probability=0.5)


def _turned(dim: int, codebook_size: int) -> Quantizer:
    """A group behind a rotation other than the identity."""
    quantizer = quantizers.RotatedQuantizer(dim, quantizers.VectorQuantizer(dim, codebook_size))
    with torch.device("cpu"):
        quantizer.set_rotation(torch.linalg.qr(normal(5, dim, dim))[0])
    return quantizer


def missing_of(case: "Case") -> dict[str, Any]:
    """The options of a case that JSON cannot hold."""
    return {name: value for name, value in case.options.items() if value is halved}


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers of a seed, drawn in float64 and rounded to `dtype`."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def given(size: int = SIZE, channels: int = DIM) -> Tensor:
    """Codes that are given at construction."""
    return normal(11, size, channels, dtype=torch.float32)


FIRST = torch.arange(SIZE) < 12
"""A mask of the first codes."""

VARIANTS = [
    Case("vq", {"distance": "cosine"}, foundation=True),
    Case("vq", {"distance": "angle"}, foundation=True),
    Case("vq", {"decoder_gradient": True}, foundation=True),
    Case("vq", {"gradient": halved}, foundation=True),
    Case("vq", {"code_dim": 2}, foundation=True),
    Case("vq", {"codebook": given(), "frozen": True}),
    Case("vq", {"codebook": given(), "frozen": FIRST}, foundation=True),
    Case(
        "vq", {"codebook": given(), "frozen": FIRST, "distance": "cosine", "regularizers": [Orthogonality(10.0)]}
    ),
    Case("ema_vq", {"codebook": given(), "frozen": True}),
    Case("ema_vq", {"codebook": given(), "frozen": FIRST}, foundation=True),
    Case("vq", {"regularizers": [Orthogonality(10.0)]}),
    Case("vq", {"regularizers": [Entropy(0.1)]}),
    Case("vq", {"regularizers": [Wasserstein(0.5)]}),
    Case("ema_vq", {"distance": "cosine"}),
    Case("ema_vq", {"distance": "angle"}),
    Case("ema_vq", {"regularizers": [Entropy(0.1, temperature=1.0)]}),
    Case("ema_vq", {"gradient": "rotation", "decay": 0.5}, foundation=True),
    Case("ema_vq", {"code_dim": 3}),
    Case("simvq", {"transform": "diagonal"}, foundation=True),
    Case("simvq", {"learned_basis": True, "gradient": "rotation"}, foundation=True),
    Case("simvq", {"transform": nn.Sequential(nn.Linear(DIM, 8), nn.GELU(), nn.Linear(8, DIM))}, foundation=True),
    Case("simvq", {"distance": "cosine"}),
    Case("simvq", {"basis": given(SIZE, 7)}),
    Case("simvq", {"basis": given(), "learned_basis": True}),
    Case("simvq", {"regularizers": [Orthogonality(10.0)]}),
    Case("rotation_vq", {"distance": "cosine"}),
    Case("fsq", {"levels": (5, 4, 3, 2), "codebook_size": None}, foundation=True),
    Case("fsq", {"levels": (7, 7, 7, 7), "codebook_size": None, "bound": "ifsq"}, foundation=True),
    Case("fsq", {"levels": (8, 5, 6), "codebook_size": None, "gradient": "rotation"}, foundation=True),
    Case("fsq", {"levels": (5, 4, 3, 8), "codebook_size": None, "bound": "tanh_twice"}),
    Case("fsq", {"levels": (5, 4, 3, 2), "codebook_size": None, "symmetric": True}),
    Case("fsq", {"levels": (8, 5), "codebook_size": None, "symmetric": True, "bound": "clamp"}),
    Case("fsq", {"levels": (5, 4, 3, 2), "codebook_size": None, "bound": "narrow"}),
    Case("fsp", {"levels": (5, 4, 3, 2), "codebook_size": None}),
    Case("fsp", {"levels": (5, 3, 4, 2), "codebook_size": None, "cdf": "tanh", "quantize_probability": 1}),
    Case("dithered_fsq", {"levels": (5, 4, 3, 2), "codebook_size": None, "noise_by": "vector", "bound": "clamp"}),
    Case("dithered_fsq", {"levels": (8, 5, 6), "codebook_size": None, "noise_probability": 0}),
    Case("normalized_fsq", {"levels": (5, 4, 3, 2), "codebook_size": None, "bound": "tanh", "decay": 0.5}),
    Case("residual_fsq", {"normalize": True}),
    Case("lfq", {"codebook_size": 2**DIM}),
    Case("lfq", {"codebook_size": 2**DIM, "gradient": "rotation"}),
    Case("lfq", {"codebook_size": 2**DIM, "group_bits": 2}),
    Case("bsq", {"codebook_size": 2**DIM, "group_bits": 1, "process_group": None}),
    Case("bsq", {"codebook_size": 2**DIM}),
    Case("bsq", {"codebook_size": 2**DIM, "gradient": "rotation"}),
    Case("bernoulli", {"codebook_size": 2**DIM, "kl_weight": 1.0, "free_nats": 0.0}),
    Case("vqbridge", {"patch_size": 5, "gate": 0.5, "learned_basis": False}),
    Case("qinco", {"num_quantizers": 2, "hidden_dim": 8, "blocks": 1, "code_dim": 3}),
    Case("qinco", {"num_quantizers": 1}),
    Case("random_projection", {"code_dim": 6}),
    Case("gaussian_quant", {"code_dim": 2, "kl_weight": 1.0, "tolerance": 0.0, "beta": 0.0}),
    Case("gumbel", {"hard": True}, foundation=True),
    Case("gumbel", {"learned_scale": True}),
    Case("gumbel", {"logits": "linear"}, foundation=True),
    Case("gumbel", {"logits": "linear", "hard": True, "code_dim": 3}, foundation=True),
    Case("fsq", {"levels": (5, 4, 3, 2), "codebook_size": None, "bound": "clamp"}, foundation=True),
    Case("residual", {"quantizer": "ema_vq", "shared": True}),
    Case("residual", {"quantizer": "ema_vq", "dropout": 0.5, "dropout_by": "batch", "code_dim": 2}),
    Case("residual", {"quantizer": "rotation_vq", "num_quantizers": 2, "learn_scales": True}),
    Case("grouped", {"quantizer": "ema_vq"}),
    Case("grouped", {"quantizer": "fsq", "shared": True}),
    Case("grouped", {"quantizer": "residual", "num_quantizers": 2}),
    Case("parallel", {"quantizer": "ema_vq", "num_quantizers": 3}),
    Case("grouped", {"quantizer": "ema_vq", "dropout": 0.5, "decay": 0.5}),
    Case("grouped", {"quantizer": "vq", "dropout": 0.5, "dropout_by": "batch", "shared": True}),
    Case("multihead", {"distance": "cosine", "gradient": "rotation"}),
    Case("multihead", {"dropout": 0.5, "decoder_gradient": True}),
    Case("ibq", {"code_dim": 3}),
    Case("ibq", {"entropy_weight": 0.05}),
    Case("optvq", {"distance": "cosine", "gradient": "rotation"}),
    Case("diveq", {"distance": "cosine", "noise_variance": 0.0}),
    Case("nsvq", {"distance": "cosine"}),
    Case("lattice", {"codebook_size": 4320}),
    Case("lattice", {"gradient": "rotation", "commitment_weight": 0.25}),
    Case("bypass", {"quantizer": "ema_vq", "probability": 0.5, "code_dim": 3}),
    Case("bypass", {"quantizer": "residual", "num_quantizers": 2, "probability": 0.5}),
    Case("bypass", {"quantizer": "fsq", "probability": 0.0}),
    Case("interpolated", {"quantizer": "ema_vq", "hardness": 0.25}),
    Case("interpolated", {"quantizer": "grouped", "hardness": 0.75, "code_dim": 3}),
    Case("residual", {"quantizer": _bypassed, "num_quantizers": 2}),
    Case("rotated", {"quantizer": "residual", "num_quantizers": 2, "code_dim": 3}),
    Case("rotated", {"quantizer": "fsq"}),
    Case("opq", {"quantizer": "ema_vq", "shared": True}),
    Case("grouped", {"quantizer": _turned}),
]
FOUNDATIONS = [
    Case(name, foundation=True) for name in ("vq", "ema_vq", "simvq", "rotation_vq", "fsq", "gumbel", "none")
]
# Not the quantizers of whole maps, which have no index for each vector: tests/methods/test_multiscale.py has their
# contract.
METHODS = sorted(
    [
        *FOUNDATIONS,
        *(
            case
            for case in map(Case, {*quantizers.available()} - {case.name for case in FOUNDATIONS})
            if case.sample.per_vector
        ),
    ],
    key=lambda case: case.name,
)
"""Every registered method without options."""
NAMES = [case.name for case in METHODS]
CASES = [*METHODS, *VARIANTS]

every_method = pytest.mark.parametrize("case", METHODS, ids=str)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def cases_where(accept: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Parametrize over the cases that `accept` takes."""
    return pytest.mark.parametrize("case", [case for case in CASES if accept(case)], ids=str)


def state_of(quantizer: Quantizer) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, also those that are not saved."""
    return {
        name: tensor.detach().clone()
        for name, tensor in [*quantizer.named_parameters(), *quantizer.named_buffers()]
    }


def assert_same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} changed"


def seeded(quantizer: Quantizer, *args: Any, seed: int = 7) -> quantizers.QuantizerOutput:
    """A forward whose random draws are those of `seed`."""
    torch.manual_seed(seed)
    return quantizer(*args)


def batch(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rounding_tolerance(quantizer: Quantizer) -> float:
    """How far two computations of the same decoded code may lie apart: zero unless a matrix product is on the way.

    Two orders of summation of n terms differ by at most 2(n + 1)ε Σ|terms|, and a layer passes on what came
    before it times its largest row sum. GELU, the one activation here, has slopes below 1.13. VQBridge's products
    are of the same shapes whatever is decoded, and QINCo's where as many vectors are decoded as were quantized:
    their order of summation is one.
    """
    quantizer = quantizer.evaluated
    if isinstance(quantizer, RotatedQuantizer):
        return _rounding_of_rotated(quantizer)
    transform = getattr(quantizer, "transform", nn.Identity())
    same_shapes = isinstance(transform, VQBridge)
    maps = [quantizer.project_out] if same_shapes else [transform, quantizer.project_out]  # in decoding's order
    linear = nn.Linear | Projection | FixedProjection
    layers = [layer for part in maps for layer in part.modules() if isinstance(layer, linear)]
    if not layers:  # the sum of the components' errors is more than that of their mean
        inside = quantizer.components if isinstance(quantizer, ComposedQuantizer) else []
        return sum(rounding_tolerance(component) for component in inside)
    start = quantizer.basis if hasattr(quantizer, "basis") and not same_shapes else quantizer.codebook
    largest = float(start.detach().abs().max())
    eps, error = torch.finfo(layers[0].weight.dtype).eps, 0.0
    for layer in layers:
        row_sum = float(layer.weight.detach().abs().sum(1).max())
        bias = 0.0 if getattr(layer, "bias", None) is None else float(layer.bias.detach().abs().max())
        largest = 1.13 * (row_sum * largest + bias)
        error = 1.13 * row_sum * error + 2 * (layer.weight.shape[1] + 1) * eps * largest
    return error


def _rounding_of_rotated(quantizer: RotatedQuantizer) -> float:
    """`rounding_tolerance` with one more layer, Rᵀ, whose products are exact where R is a permutation."""
    weights, inside = quantizer.rotation.abs(), quantizer.quantizer
    row_sum, error = float(weights.sum(0).max()), rounding_tolerance(inside)
    if ((weights == 0) | (weights == 1)).all():
        return row_sum * error
    largest = float(inside.codebook.detach().abs().max())
    return row_sum * error + 2 * (quantizer.dim + 1) * torch.finfo(weights.dtype).eps * row_sum * largest


def index_shape(quantizer: Quantizer, *shape: int) -> tuple[int, ...]:
    """The shape of the indices of vectors [*shape, dim]."""
    return (*shape, quantizer.num_codebooks) if quantizer.composed else shape


def indices_for(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """These indices in each of the codebooks."""
    if not quantizer.composed:
        return indices
    return indices[..., None].expand(*indices.shape, quantizer.num_codebooks).clone()


def has_index(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """Which vectors have an index, bool, of their leading axes."""
    return (indices >= 0).any(-1) if quantizer.composed else indices >= 0
