"""A quantizer of ours that answers as the one in whose place it stands."""

import abc
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from quantizers.codebooks.ema import EMAVectorQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Place(NamedTuple):
    """What a model asks of the quantizer at a place in it."""

    dim: int
    """Channels of what the model hands over."""
    codebook_size: int | tuple[int, ...]
    """How many codes; of stages that differ one number each."""
    channel_dim: int
    stages: int | None = None
    """How many residual stages; None for one code a vector."""
    options: Mapping[str, Any] = NOTHING
    """What the model's own quantizer does that ours can do too; each where the new one takes it."""
    kept: Mapping[str, Any] = NOTHING
    """With `keep_codebook` besides: what makes losses and search those of the model's own quantizer."""
    groups: int | None = None
    """How many groups of channels with a code each; None for one code a vector."""
    sampling: Mapping[str, Any] = NOTHING
    """As `options`, for a Gumbel quantizer alone: others have a temperature that means something else."""
    group_dim: int | None = None
    """Channels of a group, where the groups together have others than `dim`: then x is projected once."""
    one_codebook: bool = False
    """Whether the groups share their codes."""


class Adapter(nn.Module, abc.ABC):
    """Holds a quantizer of ours, and speaks a foreign one's contract: axes, tuples, attributes, no arithmetic.

    A subclass is one contract: it defines `forward` and whatever else models of its kind call or read,
    `read`, and `trained_codebook` where the original's codes can be carried over. `register_contract` makes it
    known.

    Args:
        quantizer: ours, in the layout of the place. original: the module that stood there; `unplug` puts it back.
    """

    contract: ClassVar[str]
    """Its name, for `plug_in(..., contract=)`: that of the package or model whose quantizer it is, with a part of
    it behind; of one that transformers has in another form than its own package, with `_transformers` last."""
    classes: ClassVar[tuple[str, ...]]
    """What the modules that it stands in for are called."""
    channel_dim: ClassVar[int] = -1
    """Where they expect the channels."""
    has_stages: ClassVar[bool] = False
    """Whether they are residual."""
    side_by_side: ClassVar[bool] = False
    """Whether several of them in one module are one quantizer to the model, and are replaced together."""

    original: Any
    """What stood at the place. Not a submodule: it must not be trained, moved or saved with the model."""

    dtype: torch.dtype
    """What the model was cast to, and gets codes of indices in; the quantizer stays in float32. No tensor tells
    it: one that the checkpoint does not hold would be left without a value by loaders that build on `meta`."""

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.__dict__["original"] = original
        self.dtype = torch.get_default_dtype()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to`, `.half` and the like: `dtype` follows."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        cast = fn(torch.empty(0, dtype=self.dtype, device="cpu")).dtype
        if cast.is_floating_point:
            self.dtype = cast
        return self

    def _decoded(self, indices: Tensor) -> Tensor:
        """`quantizer.decode`, in the model's dtype."""
        return self.quantizer.decode(indices).to(self.dtype)

    @classmethod
    def reads(cls, module: nn.Module) -> bool:
        """Whether a module is one that this contract knows; by its class's name and what `read` finds in it."""
        if type(module).__name__ not in cls.classes:
            return False
        try:
            cls.read(module)
        except (AttributeError, TypeError):
            return False
        except ValueError:
            pass  # it is one, with a setting that `plug_in` will name
        return True

    @classmethod
    @abc.abstractmethod
    def read(cls, original: Any) -> Place:
        """What the original asks for. Raises: AttributeError or TypeError for a module of another kind; ValueError
        for a setting that this contract does not keep."""

    @classmethod
    def check_model(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Raises: ValueError for a quantizer whose indices the model around it cannot read. None by default."""

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The original's codes, [K, code_dim], or [stages, K, code_dim].

        Raises: ValueError where it has none that stand by themselves."""
        raise ValueError(f"{type(original).__name__} holds no codebook that could be carried over")

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        """Carry the original's codes over. Raises: ValueError for a quantizer whose codes cannot be set."""
        codes = cls.trained_codebook(original)
        if codes.dim() == 2:
            set_codebook(quantizer, codes)
            return
        for part, own in zip(stages_of(quantizer, len(codes)), codes, strict=True):
            set_codebook(part, own)

    @classmethod
    def keep_structure(cls, original: Any, quantizer: Quantizer) -> None:
        """Give a quantizer the modules that `keep` would, without values, for a checkpoint to fill. None by
        default."""


class CodebookView:
    """What models read of an nn.Embedding that is not there: look codes up, their table, its size."""

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype | None = None) -> None:
        self._quantizer = quantizer
        self._dtype = dtype

    def __call__(self, indices: Tensor) -> Tensor:
        """The vectors [..., dim] of indices, in `dtype`; default the quantizer's."""
        return decode_channels_last(self._quantizer, indices).to(self._dtype)

    @property
    def weight(self) -> Tensor:
        """All vectors, [K, dim]. Raises: ValueError where there are too many, or several codebooks."""
        if self._quantizer.composed:
            raise ValueError(
                f"{type(self._quantizer).__name__} has several codebooks, and a model reads one table of codes; "
                "decode indices instead"
            )
        return self(torch.arange(len(self._quantizer.codebook), device=self._quantizer.codebook.device))

    @property
    def num_embeddings(self) -> int:
        """K."""
        return self._quantizer.codebook_size

    @property
    def embedding_dim(self) -> int:
        """Channels of a vector, as the model gets it."""
        return self._quantizer.dim


def set_codebook(quantizer: Quantizer, codes: Tensor) -> None:
    """Set a quantizer's codes [K, code_dim]. Raises: ValueError where it has none to set, or chooses otherwise."""
    if quantizer._index_rule.get("choice", "nearest") != "nearest":
        raise ValueError(
            f"{type(quantizer).__name__} does not choose the nearest code: with codes that are kept it would give "
            "other indices; expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq' or 'gumbel' with "
            "logits='distance'"
        )
    setter = getattr(quantizer, "set_codebook", None)
    if setter is None:
        raise ValueError(
            f"{type(quantizer).__name__} cannot keep a codebook: its codes are not set one by one; expected one "
            "of 'vq', 'ema_vq', 'rotation_vq', 'simvq' or another with a method set_codebook"
        )
    setter(codes)


def set_averages(quantizer: Quantizer, cluster_size: Tensor, embedding_sum: Tensor) -> None:
    """Go on from the averages N [K] and m [K, code_dim], in a quantizer that has any; where no vector was seen
    yet, each code counts as one."""
    if isinstance(quantizer, EMAVectorQuantizer) and cluster_size.any():
        quantizer.set_averages(cluster_size, embedding_sum)


def stages_of(quantizer: Quantizer, count: int, *, shared: bool = False) -> Sequence[Quantizer]:
    """The stages of a residual quantizer that can take over the codes of `count` others.

    Args: shared: those others have one codebook between them.

    Raises: ValueError.
    """
    residual = as_residual(
        quantizer, f"quantizer is {type(quantizer).__name__}, which cannot keep the codebooks of stages"
    )
    if len(residual.stages) != count:
        raise ValueError(f"quantizer has {len(residual.stages)} stages, and {count} codebooks are to be kept")
    if residual.entry is not None or residual.log_scales is not None:
        raise ValueError("quantizer scales or bounds what its stages get, and the kept codes are for neither")
    if len(set(residual.stages)) not in (1 if shared else count, count):
        raise ValueError(f"quantizer shares its codebook, and {count} of their own are to be kept")
    return residual.stages


def as_residual(quantizer: Quantizer, otherwise: str) -> ResidualQuantizer:
    """The quantizer, if it is a ResidualQuantizer. Raises: ValueError with the text `otherwise` if it is not."""
    if not isinstance(quantizer, ResidualQuantizer):
        raise ValueError(otherwise)
    return quantizer


def groups_of(quantizer: Quantizer, count: int, *, shared: bool = False) -> Sequence[Quantizer]:
    """The groups of a grouped quantizer that can take over the codes of `count` others.

    Args: shared: those others have one codebook between them.

    Raises: ValueError.
    """
    if len(quantizer.groups) != count:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__} with {quantizer.num_codebooks} codebooks, expected a "
            f"GroupedQuantizer of {count} groups, whose codes are to be kept"
        )
    if len(set(quantizer.groups)) not in (1 if shared else count, count):
        raise ValueError(f"quantizer shares its codebook, and {count} of their own are to be kept")
    return quantizer.groups


def decode_channels_last(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The vectors [..., dim] of indices [...], or [..., num_codebooks], whatever the quantizer's layout."""
    codebooks, shape = (indices.shape[-1:], indices.shape[:-1]) if quantizer.composed else ((), indices.shape)
    ones = (1,) * (quantizer.channel_dim - 1)  # as many axes as the layout has before its channels
    return quantizer.decode(indices.reshape(-1, *ones, *codebooks)).reshape(*shape, quantizer.dim)


def flat_indices(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """Indices [...] as [N]; of several codebooks [N, num_codebooks]."""
    return indices.reshape(-1, indices.shape[-1]) if quantizer.composed else indices.reshape(-1)
