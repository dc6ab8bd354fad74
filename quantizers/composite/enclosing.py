"""Quantizers around another quantizer, whose indices and codebooks are their own."""

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.composite.composed import all_valid
from quantizers.composite.repetition import STAGE_OPTIONS
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create
from quantizers.core.row_quantizer import RowQuantizer


class EnclosingQuantizer(RowQuantizer):
    """A quantizer with the indices, the codebooks, the loss and the state of another one, `quantizer`, inside it.

    The codes are in the code space of the quantizer inside, which projects. `forward` and `encode` pass on the
    options of that quantizer. A subclass defines `_quantize`.

    Args:
        quantizer: any quantizer with its channels last, also one of maps.
        channel_dim: axis of x's channels.

    Raises: TypeError for something other than a Quantizer; ValueError for one with its channels on another axis.
    """

    def __init__(self, quantizer: Quantizer, *, channel_dim: int) -> None:
        _check_inside(quantizer)
        super().__init__(quantizer.dim, quantizer.codebook_size, channel_dim=channel_dim)
        self.quantizer = quantizer
        self.code_dim = quantizer.code_dim
        self.num_codebooks = quantizer.num_codebooks
        self.composed = quantizer.composed
        self.per_vector = quantizer.per_vector
        self.truncatable = quantizer.truncatable

    @classmethod
    @forwards(others=f"the quantizer inside; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls, dim: Size, *, quantizer: str | Builder = "vq", channel_dim: int = -1, **options: Any
    ) -> Self:
        """Build the quantizer inside.

        Args:
            quantizer: its name, class or function, as for `create`.
            options: further arguments of the constructor; all others go to that quantizer.
        """
        own, inner = split_options(cls, options)
        with forwarding(cls.from_options):
            inside = create(quantizer, dim, **inner)
        return cls._around(inside, channel_dim=channel_dim, **own)

    @classmethod
    def _around(cls, quantizer: Quantizer, **options: Any) -> Self:
        """Call the constructor."""
        return cls(quantizer, **options)

    def _compared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.quantizer._compared(self.quantizer._project_in(all_valid(z)).vectors)

    @property
    def codebook(self) -> Tensor:
        """The codebook of the quantizer inside."""
        return self.quantizer.codebook

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes in each codebook, in the order of the indices."""
        return self.quantizer.codebook_sizes

    @property
    def observes(self) -> bool:
        """Whether a forward in training changes the state of the quantizer inside other than through gradients."""
        return self.quantizer.observes

    @property
    def initializes_from_data(self) -> bool:
        """Whether the quantizer inside does."""
        return self.quantizer.initializes_from_data

    @property
    def value_is_code(self) -> bool:
        """Whether training returns the code of each index."""
        return self.quantizer.value_is_code

    @property
    def draws_in_training(self) -> bool:
        """Whether the quantizer inside draws random numbers in training."""
        return self.quantizer.draws_in_training

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether the loss of the quantizer inside is a statistic of the batch."""
        return self.quantizer.loss_depends_on_batch

    @property
    def index_depends_on_batch(self) -> bool:
        """Whether an index of the quantizer inside depends on the other vectors of the batch in training."""
        return self.quantizer.index_depends_on_batch

    @property
    def same_indices_in_training(self) -> bool:
        """Whether the quantizer inside gives the same indices in training as `encode` does."""
        return self.quantizer.same_indices_in_training

    @property
    def same_loss_in_training(self) -> bool:
        """Whether the quantizer inside gives the same loss in training as in evaluation."""
        return self.quantizer.same_loss_in_training

    def indices_by_codebook(
        self, indices: Tensor, x: Tensor, sizes: Sequence[Any] | None = None
    ) -> Sequence[Tensor]:
        """See Quantizer."""
        return self.quantizer.indices_by_codebook(indices, x.movedim(self.channel_dim, -1), sizes)

    def forward(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> QuantizerOutput:
        """Quantize x.

        Args:
            x, mask: see Quantizer.
            options: those of the quantizer inside: `num_codebooks` of a residual quantizer, `sizes` of a
                multi-scale quantizer.
        """
        if isinstance(x, MethodCall):
            return x.run(self)
        layout = self._layout_options(options)
        quantized, indices, loss = self._forward(x, mask, lambda rows: self._quantize(rows, **options), **layout)
        return QuantizerOutput(quantized, indices, loss.sum() if self.composed else loss)

    @through_forward
    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """The indices that the quantizer inside gives for x.

        Args: options: those of its `encode`, such as `num_codebooks` and `beam_width` of a residual quantizer.
        """
        return self._encode_input(x, mask, **self._layout_options(options), **options)

    def _layout_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Take the options out that go with the shape of x: `sizes`, for a quantizer of maps."""
        return {"sizes": options.pop("sizes")} if "sizes" in options and not self.per_vector else {}

    def _listed(self, sizes: Sequence[Any] | None) -> Sequence[Any] | None:
        return self.quantizer._listed(sizes)

    @abc.abstractmethod
    def _quantize(self, rows: Rows, **options: Any) -> QuantizerOutput:
        """See Quantizer. Args: options: those of the forward of the quantizer inside."""

    def encode_rows(self, rows: Rows, **options: Any) -> Tensor:
        """`encode` for rows [N, dim], called by quantizers that contain this one."""
        return self._through("encode_rows", self._project_in(rows), **options)

    def _encode(self, z: Tensor) -> Tensor:
        return self._through("encode_rows", all_valid(z))

    def _decode(self, indices: Tensor) -> Tensor:
        return self._through("decode_rows", indices)

    def _through(self, method: str, argument: Any, **options: Any) -> Tensor:
        forward: Any = self.quantizer.forward
        result: Tensor = forward(MethodCall(method, (argument,), options))
        return result

    def _reshape_indices(self, indices: Tensor, shape: torch.Size) -> Tensor:
        return self.quantizer._reshape_indices(indices, shape)

    def _check_indices(self, indices: Tensor) -> Tensor:
        return self.quantizer._check_indices(indices)

    def _check_columns(self, indices: Tensor) -> None:
        self.quantizer._check_columns(indices)

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """See `LearnedCodes.learned_rows`."""
        yield from self.quantizer.learned_rows(self._project_in(rows), indices)

    @torch.no_grad()
    def observe_rows(self, rows: Rows, indices: Tensor) -> None:
        """Let the quantizer inside learn from all rows."""
        self.quantizer.observe_rows(self._project_in(rows), indices)

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        self.quantizer.initialize_rows(projected, process_group)


def _check_inside(quantizer: object) -> None:
    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"quantizer is {quantizer!r}, expected a Quantizer")
    if quantizer.channel_dim != -1:
        raise ValueError(
            f"quantizer has channel_dim={quantizer.channel_dim}, expected −1: it gets vectors with channels last"
        )
