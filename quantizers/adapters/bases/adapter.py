"""The base class of all adapters: a module that answers like the quantizer that it replaces."""

import abc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.adapters.bases.copying import set_codebook, stages_of
from quantizers.adapters.bases.spec import QuantizerSpec, random_vectors
from quantizers.core.base import Quantizer


class Adapter(nn.Module, abc.ABC):
    """Holds a quantizer of this library and follows a contract: how a model calls its own quantizer.

    An adapter moves axes, builds the tuple that the model expects and has the attributes that the model reads. It
    does no arithmetic. In these docstrings the "original" is the module that the adapter replaces.

    A subclass implements one contract. It defines `forward`, `read_spec`, whatever else models of its kind call or
    read, and `trained_codebook` if the original's codes can be copied. `register_contract` makes `plug_in` find
    it.

    Args:
        quantizer: a quantizer of this library, in the layout that the model uses.
        original: the module to replace; `unplug` puts it back.
    """

    contract: ClassVar[str]
    """The name of the contract, for `plug_in(..., contract=)`: the package or model that defines the quantizer,
    then the part of it. A name that ends in `_transformers` is for the version in transformers of a quantizer that
    also has a package of its own."""
    classes: ClassVar[tuple[str, ...]]
    """The names of the classes that this adapter replaces."""
    channel_dim: ClassVar[int] = -1
    """The axis on which these classes expect the channels."""
    has_stages: ClassVar[bool] = False
    """Whether these classes are residual quantizers."""
    has_scales: ClassVar[bool] = False
    """Whether these classes quantize maps scale by scale."""
    replaced_together: ClassVar[bool] = False
    """Whether several of them inside one module act as one quantizer, so that `plug_in` replaces all of them."""

    positions: ClassVar[int] = 1
    """How many axes of positions these classes quantize: 1 for sequences, 2 for images, 3 for videos."""
    reference: ClassVar[str] = "vq"
    """The method that computes what these classes compute, if it has their codes."""
    samples: ClassVar[bool] = False
    """Whether these classes draw random numbers in evaluation, too."""
    omitted_methods: ClassVar[tuple[str, ...]] = ()
    """Public methods of these classes that no model calls, so that the adapter has none of them. A class with
    another method that the adapter lacks does not follow this contract."""

    original: Any
    """The module that was replaced. It is not a submodule, so that it is not trained, moved or saved."""

    dtype: torch.dtype
    """The dtype that the model was cast to. Decoded vectors have it; the quantizer itself stays in float32. It is
    no buffer: loaders that build on `meta` would leave a buffer that is missing from the checkpoint without a
    value.
    """

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.__dict__["original"] = original
        self.dtype = torch.get_default_dtype()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Implements `.to`, `.half` and the like; `dtype` follows."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        cast = fn(torch.empty(0, dtype=self.dtype, device="cpu")).dtype
        if cast.is_floating_point:
            self.dtype = cast
        return self

    def _decode_indices(self, indices: Tensor) -> Tensor:
        """`quantizer.decode`, in the model's dtype."""
        return self.quantizer.decode(indices).to(self.dtype)

    @classmethod
    def recognizes(cls, module: nn.Module) -> bool:
        """Whether this contract applies to a module: by the name of its class, and by what `read_spec` finds."""
        return type(module).__name__ in cls.classes and cls.reads(module)

    @classmethod
    def reads(cls, module: nn.Module) -> bool:
        """Whether a module has what `read_spec` reads."""
        try:
            cls.read_spec(module)
        except (AttributeError, TypeError):
            return False
        except ValueError:
            pass  # the right class, with a setting that is not supported: `plug_in` will say which
        return True

    @classmethod
    @abc.abstractmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        """Read sizes and options from the original.

        Raises: AttributeError or TypeError for a module of another kind; ValueError for a setting that this
            contract does not support.
        """

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        """Random vectors in the shape that the original quantizes, for `calls`: two samples of eight positions on
        each axis."""
        return random_vectors(spec, cls.positions)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """All calls that models make of their quantizer, in order, and what each returned.

        `plug_in` compares them between the original and an adapter. By default models only call it with `z`.

        Args:
            module: the original, or an adapter.
            z: see `example`.
        """
        yield "forward", module(z)

    @classmethod
    def check_quantizer(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Check that the model can use the indices of a quantizer. By default it can.

        Raises: ValueError if it cannot.
        """

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The original's codes, [K, code_dim], or [stages, K, code_dim].

        Raises: ValueError if it has no table of codes.
        """
        raise ValueError(f"{type(original).__name__} has no table of codes that could be copied")

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the original's codes into a quantizer, for `keep_codebook`.

        Raises: ValueError if the quantizer's codes cannot be set.
        """
        codes = cls.trained_codebook(original)
        if codes.dim() == 2:
            set_codebook(quantizer, codes)
            return
        for stage, own in zip(stages_of(quantizer, len(codes)), codes, strict=True):
            set_codebook(stage, own)

    @classmethod
    def prepare_for_checkpoint(cls, original: Any, quantizer: Quantizer) -> None:
        """Add the modules that `copy_codebook` would add, without values, for a checkpoint to fill.

        By default there are none.
        """
