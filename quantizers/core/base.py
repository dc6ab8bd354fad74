"""The one interface that every quantizer implements."""

import abc
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Never

from quantizers.core.arguments.checks import Count, Size
from quantizers.core.arguments.construction import RecordedConstruction
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import module_repr
from quantizers.core.candidates import CodeCandidates
from quantizers.core.code_hooks import CodeHooks, ForwardEvent
from quantizers.core.code_indices import CodeIndices
from quantizers.core.layout import Rows, from_rows, to_rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.unused_codes import look_for_unused_codes
from quantizers.kernels.common.dispatch import without_autocast


class Quantizer(RecordedConstruction, CodeIndices, CodeHooks, CodeCandidates, LearnedCodes, abc.ABC):
    """Vectors in, codes out: layout, masks, precision and projections. Subclasses choose the codes.

    Everything inside is computed in float32 (float64 for float64 input), whatever autocast or the module's dtype
    say: `.half()` and `.bfloat16()` leave a quantizer's parameters and buffers in float32.

    To write a new method, derive from `RowQuantizer`, which quantizes each vector by itself, or from
    `MapQuantizer`, which quantizes maps as a whole; CONTRIBUTING.md has a worked example.

    Args:
        dim: the number of channels of x.
        codebook_size: K, the number of codes; 0 for a quantizer that has none.
        code_dim: the number of channels of a code. Where it differs from `dim`, one learned linear layer projects
            in and another one projects out. Default: `dim`.
        channel_dim: the axis of x that holds its channels: −1, or 1 for [B, C, H, W] and [B, C, T].

    Raises: ValueError for a size below 1.
    """

    per_vector: bool = True
    """Whether each vector is quantized by itself and has indices of its own."""

    truncatable: bool = False
    """Whether `forward` and `encode` take `num_codebooks`, and `decode` the indices of the first codebooks."""

    @property
    def value_is_code(self) -> bool:
        """Whether training returns the code of each index, not a mixture of codes and not a code with noise."""
        return True

    @property
    def draws_in_training(self) -> bool:
        """Whether a forward in training draws random numbers."""
        return False

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether the loss is a statistic of the batch, not the mean of what each vector contributes."""
        return False

    @property
    def index_depends_on_batch(self) -> bool:
        """Whether an index in training depends on the other vectors of the batch."""
        return False

    @property
    def same_indices_in_training(self) -> bool:
        """Whether a forward in training gives the indices that `encode` gives."""
        return True

    @property
    def same_loss_in_training(self) -> bool:
        """Whether a forward in training gives the loss that evaluation gives."""
        return self.same_indices_in_training

    @checked
    def __init__(
        self, dim: Size, codebook_size: Count, *, code_dim: Size | None = None, channel_dim: int = -1
    ) -> None:
        super().__init__(dim, code_dim)
        self.codebook_size = codebook_size
        self.num_codebooks = 1
        self.channel_dim = channel_dim

    @property
    @abc.abstractmethod
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]."""

    @abc.abstractmethod
    def _quantize(self, rows: Rows) -> QuantizerOutput:
        """Quantize rows in code space [N, code_dim]. Rows that are not valid are zero and must not count."""

    def _unquantized(self, z: Tensor) -> Tensor:
        """What the codes approximate, [N, code_dim], of vectors z that were projected in; by default z itself."""
        return z

    @abc.abstractmethod
    def encode_rows(self, rows: Rows) -> Tensor:
        """`encode` for rows [N, dim], called by quantizers that contain this one."""

    @abc.abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """The quantized vectors of indices: [..., dim], the channels on `channel_dim`. Index −1 gives zero.

        The result is made of the current codes. Where a forward in training moves them (`observes`), these are no
        longer the ones that its `quantized` is made of.

        Raises: TypeError for indices that are not integers; IndexError for one outside [−1, K); ValueError where
            the last axis does not fit the codebooks. A compiled or exported graph cannot raise for a value; such
            an index gives NaN there.
        """

    @property
    def evaluated(self) -> "Quantizer":
        """The quantizer that this one is in evaluation: itself, or one inside, which it changes in training."""
        return self

    @property
    def stages(self) -> Sequence["Quantizer"]:
        """The quantizers whose values add up to this one's, each given what the previous ones left; by default
        this quantizer alone."""
        return (self,)

    @property
    def groups(self) -> Sequence["Quantizer"]:
        """The quantizers that share out the channels among them, in order; by default this quantizer alone."""
        return (self,)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize x.

        Args:
            x: [..., dim], or with its channels on `channel_dim`; any floating dtype, any leading axes.
            mask: bool, x's shape without the channel axis, True for vectors that count. Masked vectors get
                index −1, the zero vector, and no weight in losses and statistics.

        A vector that is not finite gets index −1 and NaN, and affects neither the loss nor the state.

        Raises: ValueError or TypeError where x or mask do not fit.
        """
        if isinstance(x, MethodCall):
            return x.run(self)
        quantized, indices, loss = self._forward(x, mask, self._quantize)
        return QuantizerOutput(quantized, indices, loss.sum() if self.composed else loss)

    @through_forward
    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The indices that evaluation gives for x, in either mode: int64, shaped as those of `forward`."""
        return self._encode_input(x, mask)

    def _encode_input(
        self, x: Tensor, mask: Tensor | None, *, sizes: Sequence[Any] | None = None, **options: Any
    ) -> Tensor:
        """`encode` with options of `encode_rows`. Args: sizes: of the scales of a map."""
        sizes = self._listed(sizes)
        rows = to_rows(x, mask, self.dim, self.channel_dim, sizes)
        with without_autocast(x.device):
            indices = self._reshape_indices(self.encode_rows(rows, **options), rows.shape)
        return self._notify_code_hooks(ForwardEvent(x, mask, indices, False, sizes))

    def _forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        quantize: Callable[[Rows], QuantizerOutput],
        *,
        sizes: Sequence[Any] | None = None,
    ) -> QuantizerOutput:
        """`forward` with `quantize` for `_quantize`, and with the loss as that returns it.

        Args: sizes: of the scales of a map.
        """
        self._warn_of_half_state()
        sizes = self._listed(sizes)
        rows = to_rows(x, mask, self.dim, self.channel_dim, sizes)
        with without_autocast(x.device):
            quantized, indices, loss = self._quantize_projected(rows, quantize)
            if self.training and self.observes:
                self.observe_rows(rows, indices)
        if rows.mask is not None:
            quantized = quantized.where(rows.mask[:, None], 0.0)
        quantized = from_rows(quantized.to(x.dtype), rows.shape, self.channel_dim, like=x)
        event = ForwardEvent(x, mask, self._reshape_indices(indices, rows.shape), True, sizes)
        if self.training and not torch.compiler.is_compiling():
            look_for_unused_codes(self, event)
        return QuantizerOutput(quantized, self._notify_code_hooks(event), loss.to(rows.vectors.dtype))

    def _listed(self, sizes: Sequence[Any] | None) -> Sequence[Any] | None:
        """The sizes of the scales of a map as one tuple for each, for a quantizer of maps."""
        return sizes

    def _quantize_projected(self, rows: Rows, quantize: Callable[[Rows], QuantizerOutput]) -> QuantizerOutput:
        """Project rows [N, dim] into code space, quantize them there, and project the codes out."""
        projected = self._project_in(rows)
        codes, indices, loss = quantize(projected)
        valid = self._rows_still_valid(projected.valid, indices)
        quantized, indices = self._mark_rows(self._project(self.project_out, codes), indices, valid)
        return QuantizerOutput(quantized, indices, loss)

    def extra_repr(self) -> str:
        differ = len(set(self.codebook_sizes)) > 1
        sizes = [f"dim={self.dim}", f"codebook_size={self.codebook_sizes if differ else self.codebook_size}"]
        if self.code_dim != self.dim:
            sizes.append(f"code_dim={self.code_dim}")
        return ", ".join(sizes)

    def __repr__(self) -> str:
        return module_repr(self)

    def __dir__(self) -> list[str]:
        """Leave out a codebook that cannot be read: `torch.jit.trace`, for one, reads every attribute."""
        names = set(super().__dir__())  # type: ignore[no-untyped-call]
        try:
            self.codebook  # noqa: B018
        except ValueError:
            names.discard("codebook")
        return sorted(names)

    def __prepare_scriptable__(self) -> Never:  # called by torch.jit.script
        raise TypeError(
            f"torch.jit.script cannot compile {type(self).__name__}; trace the model instead, in evaluation mode: "
            "torch.jit.trace(model.eval(), (x,)), or torch.export.export(model.eval(), (x,))"
        )


# A class's signature is that of its constructor, also for a class without a constructor of its own.
RecordedConstruction.__new__.__signature__ = inspect.signature(Quantizer.__init__)  # type: ignore[attr-defined]
