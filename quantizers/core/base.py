"""The one interface that every quantizer keeps."""

import abc
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, ClassVar, NamedTuple, Never, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantizers.core.arguments.checks import Count, Size, check_at_least, check_integers, check_tensor
from quantizers.core.arguments.construction import Construction, construction
from quantizers.core.arguments.options import checked
from quantizers.core.layout import Rows, from_rows, to_rows
from quantizers.core.parallel import ProcessGroup
from quantizers.core.projection import Projection
from quantizers.core.requests import Request, through_forward
from quantizers.core.state.half_state import call_widened, warn_of_half_state, widened
from quantizers.core.state.index_format import NAME as INDEX_FORMAT
from quantizers.core.state.quantizer_state import QuantizerState
from quantizers.kernels.dispatch import without_autocast
from quantizers.kernels.modes import has_values
from quantizers.kernels.vectors import are_finite

NO_CODE = -1  # the index of a vector that is masked or not finite


class ForwardEvent(NamedTuple):
    """What a listener is told of a forward or an `encode`."""

    x: Tensor
    mask: Tensor | None
    """As they were passed."""
    indices: Tensor
    by_forward: bool
    """Whether `forward` gave the indices, or `ResidualQuantizer.forward_stages`, and not `encode`."""


CodeHook = Callable[["Quantizer", ForwardEvent], None]


class QuantizerOutput(NamedTuple):
    """What every quantizer returns, in training and in evaluation."""

    quantized: Tensor
    """x's shape, dtype and device. Zero where masked, NaN where x is not finite."""
    indices: Tensor
    """int64, x's shape without the channel axis; of several codebooks, one more axis, last. −1 where masked or not
    finite."""
    loss: Tensor
    """0-d, float32 (float64 for float64 input), already weighted: add it to the model's loss. Infinite, never NaN,
    where float32 does not hold its value, as that of vectors beyond 10¹⁹."""


# torch.export writes an output's type by this name.
pytree._register_namedtuple(QuantizerOutput, serialized_type_name="quantizers.QuantizerOutput")


QuantizeBatch = Callable[[Rows], QuantizerOutput]


class Quantizer(QuantizerState, abc.ABC):
    """Vectors in, codes out: layout, mask, precision and projection; subclasses say which code.

    Inside, everything is computed in float32 (float64 for float64 input), whatever autocast or the module's
    dtype say: `.half()` and `.bfloat16()` leave a quantizer's parameters and buffers in float32.

    A subclass defines `_quantize`, `_encode`, `_decode` and `codebook`, all on rows [N, code_dim]. One with
    several codebooks sets `composed`, and `num_codebooks` in its constructor: its indices are [N, num_codebooks]
    everywhere, and −1 in a column stands for a code that was left out and is zero.

    Args:
        dim: channels of x.
        codebook_size: K, the number of codes; 0 for a quantizer that has none.
        code_dim: channels of a code; where it differs from `dim`, a learned linear projection leads in and
            another out. Default: `dim`.
        channel_dim: the axis of x that holds its channels: −1, or 1 for [B, C, H, W] and [B, C, T].

    Raises: ValueError for a size below 1.
    """

    composed: ClassVar[bool] = False
    """Whether a vector has several indices, on an axis of their own."""

    per_vector: ClassVar[bool] = True
    """Whether each vector is quantized by itself, and has indices of its own."""

    assignable: ClassVar[tuple[str, ...]] = (
        "channel_dim",
        "commitment_weight",
        "codebook_weight",
        "decay",
        "dropout",
        "entropy_weight",
        "kl_weight",
        "temperature",
    )
    """Numbers that may be assigned after construction: `quantizers.configuration` tells the present ones."""

    frozen: bool = False
    """Whether the codes stay as they are in training, see `freeze`."""

    _construction: Construction
    _listeners: tuple[CodeHook, ...] = ()
    _half_state_is_known: bool = False
    _has_run: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the outermost constructor's arguments, see `quantizers.configuration`."""
        new: Callable[..., Self] = super().__new__
        made = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
        made.__dict__["_construction"] = construction(cls, args, kwargs)
        return made

    @checked
    def __init__(
        self, dim: Size, codebook_size: Count, *, code_dim: Size | None = None, channel_dim: int = -1
    ) -> None:
        super().__init__()
        self.dim = dim
        self.code_dim = dim if code_dim is None else code_dim
        self.codebook_size = codebook_size
        self.num_codebooks = 1
        self.channel_dim = channel_dim
        projects = self.code_dim != dim
        self.project_in: nn.Module = Projection(dim, self.code_dim) if projects else nn.Identity()
        self.project_out: nn.Module = Projection(self.code_dim, dim) if projects else nn.Identity()

    def save(self, path: str | PathLike[str]) -> None:
        """Write configuration and weights into a folder, for `quantizers.load`."""
        from quantizers.serialization.saving import save

        save(self, path)

    @property
    @abc.abstractmethod
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]."""

    @abc.abstractmethod
    def _quantize(self, z: Tensor, valid: Tensor) -> QuantizerOutput:
        """Quantize rows z [N, code_dim]; rows that are not valid [N] are zero and must not count."""

    @abc.abstractmethod
    def _encode(self, z: Tensor) -> Tensor:
        """The indices [N] that evaluation gives for z [N, code_dim]."""

    @abc.abstractmethod
    def _decode(self, indices: Tensor) -> Tensor:
        """Codes [N, code_dim] of indices [N], all within [0, K); of several codebooks −1 too."""

    @property
    def observes(self) -> bool:
        """Whether a forward in training moves state, in `_observe`."""
        return False

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        """Learn from rows z [N, code_dim] and the indices that they were given (−1: does not count)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize x.

        Args:
            x: [..., dim], or with its channels on `channel_dim`; any floating dtype; leading axes are free.
            mask: bool, x's shape without the channel axis, True for vectors that count. Masked vectors get
                index −1, the zero vector, and no weight in losses and statistics.

        A vector that is not finite gets index −1 and NaN, and touches neither loss nor state.

        Raises: ValueError or TypeError where x or mask do not fit.
        """
        if isinstance(x, Request):
            return x.answer(self)
        quantized, indices, loss = self._forward(x, mask, self._quantize_batch)
        return QuantizerOutput(quantized, indices, loss.sum() if self.composed else loss)

    def _forward(self, x: Tensor, mask: Tensor | None, quantize: QuantizeBatch) -> QuantizerOutput:
        """`forward` by `quantize`, with the loss as that gives it."""
        self._warn_of_half_state()
        rows = to_rows(x, mask, self.dim, self.channel_dim)
        with without_autocast(x.device):
            quantized, indices, loss = self._quantize_rows(rows, quantize)
            if self.training and self.observes:
                self.observe_rows(rows, indices)
        quantized = quantized.where(rows.unmasked[:, None], 0.0).to(x.dtype)
        quantized = from_rows(quantized, rows.shape, self.channel_dim, like=x)
        indices = self._notify_hooks(
            ForwardEvent(x, mask, self._reshape_indices(indices, rows.shape), by_forward=True)
        )
        return QuantizerOutput(quantized, indices, loss.to(rows.vectors.dtype))

    def nested_quantize(self, rows: Rows) -> QuantizerOutput:
        """`quantize_rows` by way of a call of this module, for quantizers that hold it: its hooks run."""
        output: QuantizerOutput = self(Request(type(self).quantize_rows, (rows,), {}))
        return output

    def quantize_rows(self, rows: Rows) -> QuantizerOutput:
        """`forward` on rows [N, dim], for quantizers that hold this one: no state moves.

        Where a row is not valid: index −1 and NaN.
        """
        return self._quantize_rows(rows, self._quantize_batch)

    def _quantize_rows(self, rows: Rows, quantize: QuantizeBatch) -> QuantizerOutput:
        projected = self._project_in(rows)
        codes, indices, loss = quantize(projected)
        valid = self._rows_still_valid(projected.valid, indices)
        quantized = self._project(self.project_out, codes).where(valid[:, None], torch.nan)
        return QuantizerOutput(quantized, self._mark_missing(indices, valid), loss)

    @torch.no_grad()
    def observe_rows(self, rows: Rows, indices: Tensor) -> None:
        """What a forward in training learns from rows [N, dim] and the indices that `quantize_rows` gave them."""
        self._observe(self._project_in(rows).vectors.detach(), indices)

    def initialize_from(
        self, x: Tensor, mask: Tensor | None = None, *, process_group: ProcessGroup = "world"
    ) -> None:
        """Set the codes to those that k-means finds in x, see `quantizers.clustering`; a forward never does.

        Learned codebooks are set, whatever they held, in training mode and in evaluation mode. A quantizer without
        codes to learn stays as it is: FSQ, FSP, LFQ, BSQ, Bernoulli, Identity, random projection. `warm_start`
        does this for the quantizers in a model.

        Args:
            x, mask: as of `forward`. Vectors that are masked or not finite do not count.
            process_group: whose vectors count, "world" for those of all ranks, each of which must call; the codes
                are then the same on all of them.

        Raises: ValueError or TypeError where x or mask do not fit; ValueError where no vector counts.
        """
        self.initialize_rows(to_rows(x, mask, self.dim, self.channel_dim), process_group)

    @through_forward
    @torch.no_grad()
    def initialize_rows(self, rows: Rows, process_group: ProcessGroup) -> None:
        """`initialize_from` on rows [N, dim], for quantizers that hold this one."""
        if self.frozen:
            return
        with without_autocast(rows.vectors.device):
            self._initialize_batch(self._project_in(rows), process_group)

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        """`_initialize`, for those that need the shape of the batch too."""
        self._initialize(projected.vectors[projected.valid], process_group)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Set the codes after vectors z [N, code_dim], N ≥ 0, all of which count. Nothing by default."""

    def freeze(self) -> Self:
        """Keep the codes as they are, in training too, until `unfreeze`; `train()` does not undo it.

        What `codebook` reads gets no gradient, moving averages stay, and `initialize_from`, `warm_start` and the
        replacement of dead codes pass over it. Projections and scales still learn, as does the encoder by its
        commitment to the codes. `set_codebook` still sets them. A quantizer in this one is frozen with it.

        `frozen` tells; copies and pickles keep it, a `state_dict` does not, as it keeps no `requires_grad`. Build
        the optimizer afterwards, or leave it: it passes over parameters without a gradient.

        Returns: itself.
        """
        return self._set_frozen(True)

    def unfreeze(self) -> Self:
        """Let the codes learn again. Returns: itself."""
        return self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> Self:
        for part in self.modules():
            if isinstance(part, Quantizer):
                part.frozen = frozen
                for parameter in part._code_parameters():
                    parameter.requires_grad_(not frozen)
        return self

    def accumulate(self, forwards: int) -> Self:
        """Move averages once in so many forwards in training, by the vectors of all of them, as one batch would.

        For gradients that are accumulated over several forwards a step. Quantizers in this one do likewise; those
        without moving averages have nothing to move. What has been gathered for a step that is not complete is
        dropped by this call, and is in no checkpoint, as gradients are not.

        Returns: itself.

        Raises: ValueError for forwards < 1.
        """
        forwards = check_at_least("forwards", forwards, 1)
        for part in self.modules():
            if isinstance(part, Quantizer):
                part._set_accumulation(forwards)
        return self

    def _set_accumulation(self, forwards: int) -> None:
        """See `accumulate`. Nothing, without moving averages."""

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that `codebook` is made of, without those of quantizers in it; by default its own."""
        reparametrized = getattr(self, "parametrizations", nn.Module())  # of torch.nn.utils.parametrize
        return itertools.chain(self.parameters(recurse=False), reparametrized.parameters())

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes in each codebook, in the order of the indices."""
        return (self.codebook_size,) * self.num_codebooks

    def indices_by_codebook(self, indices: Tensor, x: Tensor) -> Sequence[Tensor]:
        """Indices that a forward or `encode` gave for x, apart: those from each codebook, of any shape."""
        return indices.unbind(-1) if self.composed else (indices,)

    def listen(self, listener: CodeHook) -> None:
        """Have `listener(self, event)` called after each forward and `encode` of this quantizer.

        A model that is compiled, or was before, calls it too; so does the second forward of activation
        checkpointing. Copies and pickles have no listeners, and a quantizer that is part of another calls none.
        """
        self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: CodeHook) -> None:
        """Call a listener no more."""
        others = tuple(other for other in self._listeners if other is not listener)
        self.__dict__.pop("_listeners", None)
        if others:
            self._listeners = others

    def _notify_hooks(self, event: ForwardEvent) -> Tensor:
        """The indices, of which the listeners know."""
        for listener in self._listeners:
            listener(self, event)
        return event.indices

    def __dir__(self) -> list[str]:
        """Without a codebook that cannot be read: `torch.jit.trace`, for one, reads each attribute."""
        names = set(super().__dir__())  # type: ignore[no-untyped-call]
        try:
            self.codebook  # noqa: B018
        except ValueError:
            names.discard("codebook")
        return sorted(names)

    def __prepare_scriptable__(self) -> Never:  # as torch.jit.script calls it
        raise TypeError(
            f"torch.jit.script cannot compile {type(self).__name__}; trace the model instead, in evaluation mode: "
            "torch.jit.trace(model.eval(), (x,)), or torch.export.export(model.eval(), (x,))"
        )

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        left_out = ("_listeners", "_half_state_is_known", "_has_run")
        return {name: value for name, value in state.items() if name not in left_out}

    @property
    def has_table(self) -> bool:
        """Whether its codes are rows that stand each for itself and that `move_codes` can set."""
        return False

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple["Quantizer", Tensor, Tensor]]:
        """Each quantizer in this one that `has_table`, with the vectors [N, code_dim] that chose from its codes
        (on the unit sphere where those are) and their indices [N]; −1 does not count.

        Args: rows: of a forward in training. indices: those that it gave them, in rows.
        """
        if self.has_table:
            z = self._project_in(rows).vectors
            yield self, z, indices.where(are_finite(z), NO_CODE)

    def move_codes(self, places: Tensor, targets: Tensor, shares: Tensor) -> None:
        """e ← (1 − share) e + share · target for the codes of `places` [n], if it `has_table`.

        Args: targets: [n, code_dim]. shares: [n] in (0, 1].
        """
        raise NotImplementedError

    @through_forward
    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The indices that evaluation gives for x, in either mode: int64, shaped as those of `forward`."""
        rows = to_rows(x, mask, self.dim, self.channel_dim)
        with without_autocast(x.device):
            indices = self._reshape_indices(self.encode_rows(rows), rows.shape)
        return self._notify_hooks(ForwardEvent(x, mask, indices, by_forward=False))

    def nested_encode(self, rows: Rows) -> Tensor:
        """`encode_rows` by way of `forward`, for quantizers that hold this one."""
        forward: Any = self.forward
        indices: Tensor = forward(Request(type(self).encode_rows, (rows,), {}))
        return indices

    def nested_decode(self, indices: Tensor) -> Tensor:
        """`decode_rows` by way of `forward`, for quantizers that hold this one."""
        forward: Any = self.forward
        vectors: Tensor = forward(Request(type(self).decode_rows, (indices,), {}))
        return vectors

    def encode_rows(self, rows: Rows) -> Tensor:
        """`encode` on rows [N, dim], for quantizers that hold this one."""
        projected = self._project_in(rows)
        return self._mark_missing(self._encode(projected.vectors), projected.valid)

    @through_forward
    def decode(self, indices: Tensor) -> Tensor:
        """The quantized vectors of indices: [..., dim], the channels on `channel_dim`. Index −1 gives zero.

        By the codes as they are now: where a forward in training moved them as it returned (`observes`), no longer
        those that its `quantized` is made of.

        Raises: TypeError for indices that are not integers, IndexError for one outside [−1, K). A compiled or
            exported graph cannot raise for a value; there such an index gives NaN. ValueError where the last axis
            is not that of the codebooks.
        """
        indices = self._check_indices(indices)
        shape = indices.shape[:-1] if self.composed else indices.shape
        with without_autocast(indices.device):
            vectors = self.decode_rows(indices.reshape((-1, *indices.shape[len(shape) :])))
        return from_rows(vectors, shape, self.channel_dim)

    def decode_rows(self, indices: Tensor) -> Tensor:
        """`decode` on rows [N] or [N, num_codebooks] of indices, for quantizers that hold this one: [N, dim]."""
        self._check_device("indices", indices)
        has_code = (indices >= 0) & (indices <= self.codebook_size - 1)
        is_known = has_code | (indices == NO_CODE)
        codes = widened(self._decode(indices.where(has_code, self._missing_index)))
        codes = self._project(self.project_out, codes)
        if self.composed:
            has_code, is_known = has_code.any(-1), is_known.all(-1)
        fill = torch.where(is_known, 0.0, torch.nan)
        return codes.where((has_code & is_known)[:, None], fill[:, None])

    @property
    def _missing_index(self) -> int:
        """What stands for −1 in the indices that `_decode` gets: of one codebook any code, to be discarded."""
        return NO_CODE if self.composed else 0

    def _quantize_batch(self, projected: Rows) -> QuantizerOutput:
        """`_quantize`, for those that need the shape of the batch too."""
        return self._quantize(projected.vectors, projected.valid)

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        """Which rows are valid after they were quantized, [N]."""
        return valid

    def _reshape_indices(self, indices: Tensor, shape: torch.Size) -> Tensor:
        return indices.reshape((*shape, *indices.shape[1:]))

    def _mark_missing(self, indices: Tensor, valid: Tensor) -> Tensor:
        return indices.where(valid[:, None] if self.composed else valid, NO_CODE)

    def _project_in(self, rows: Rows) -> Rows:
        """Rows in code space [N, code_dim], and which of them are valid there: a projection may overflow."""
        self._check_device("x", rows.vectors)
        if isinstance(self.project_in, nn.Identity):
            return rows
        z = self._project(self.project_in, rows.vectors)
        valid = rows.valid & are_finite(z)
        return rows._replace(vectors=z.where(valid[:, None], 0.0), valid=valid)

    @staticmethod
    def _project(projection: nn.Module, rows: Tensor) -> Tensor:
        weight = next(projection.parameters(), rows)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return call_widened(projection, rows.to(dtype)).to(rows.dtype)

    def _check_device(self, name: str, tensor: Tensor) -> None:
        """Only its own state counts: that of modules in it may be elsewhere until they are called."""
        own = (*self.named_parameters(recurse=False), *self.named_buffers(recurse=False))
        state = next((held for held_as, held in own if held_as != INDEX_FORMAT), tensor)
        if state.device != tensor.device:
            raise ValueError(f"{name} came on {tensor.device}, expected {state.device}, where the quantizer is")

    def _warn_of_half_state(self) -> None:
        """Once for each quantizer: casts leave its state in float32, what a wrapper puts in its place may not."""
        if torch.compiler.is_compiling() or self._half_state_is_known:
            return
        self._half_state_is_known = warn_of_half_state(self, thoroughly=not self._has_run)
        self._has_run = True

    def _check_indices(self, indices: Tensor) -> Tensor:
        check_integers("indices have", check_tensor("indices", indices))
        indices = indices.long()
        if self.composed:
            self._check_columns(indices)
        if not has_values(indices) or not indices.numel():
            return indices
        low, high = indices.aminmax()
        if low < NO_CODE or high > self.codebook_size - 1:
            raise IndexError(
                f"indices range from {int(low)} to {int(high)}, expected 0 to {self.codebook_size - 1}, "
                f"or {NO_CODE} for a vector without a code"
            )
        return indices

    def _check_columns(self, indices: Tensor) -> None:
        if not indices.ndim or indices.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected {self.num_codebooks} on the last axis, "
                "one of each codebook"
            )

    def extra_repr(self) -> str:
        return f"dim={self.dim}, codebook_size={self.codebook_size}, code_dim={self.code_dim}"


# A class's signature is that of its constructor, also where it has no constructor of its own.
Quantizer.__new__.__signature__ = inspect.signature(Quantizer.__init__)  # type: ignore[attr-defined]
