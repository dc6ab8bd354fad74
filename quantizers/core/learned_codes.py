"""Codes that are learned: where they start, what moves them, and what keeps them as they are."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.code_space import CodeSpace
from quantizers.core.layout import Rows, to_rows
from quantizers.core.method_calls import through_forward
from quantizers.core.output import NO_CODE
from quantizers.core.parallel import ProcessGroup
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.vectors import are_finite


class LearnedCodes(CodeSpace):
    """The protocol of learned codes. By default there is nothing to learn."""

    channel_dim: int

    frozen: bool = False
    """Whether training leaves the codes as they are, see `freeze`."""

    @property
    def frozen_codes(self) -> Tensor | None:
        """Which codes stay as they are while the others learn, bool [K]; None where `frozen` applies to all."""
        return None

    @property
    def observes(self) -> bool:
        """Whether a forward in training changes state other than through gradients, in `_observe`."""
        return False

    @property
    def has_table(self) -> bool:
        """Whether the codes are independent rows that `move_codes` can set one by one."""
        return False

    @property
    def initializes_from_data(self) -> bool:
        """Whether `initialize_from` sets codes; by default, whether the class defines `_initialize`."""
        return type(self)._initialize is not LearnedCodes._initialize

    def initialize_from(
        self, x: Tensor, mask: Tensor | None = None, *, process_group: ProcessGroup = "world"
    ) -> None:
        """Set the codes to the centroids that k-means finds in x. A forward never does this by itself.

        Learned codebooks are overwritten, in training mode and in evaluation mode. A quantizer without learned
        codes (FSQ, FSP, LFQ, BSQ, Bernoulli, Identity) stays as it is; a random projection gets the mean and the
        variance of x, and a rotated quantizer also a rotation. `warm_start` calls this for every quantizer in a
        model.

        Args:
            x, mask: as in `forward`. Vectors that are masked or not finite do not count.
            process_group: the ranks whose vectors count, "world" for all. Each of them must call this method, and
                all get the same codes.

        Raises: ValueError or TypeError where x or mask do not fit; ValueError where no vector counts.
        """
        self.initialize_rows(to_rows(x, mask, self.dim, self.channel_dim), process_group)

    @through_forward
    @torch.no_grad()
    def initialize_rows(self, rows: Rows, process_group: ProcessGroup) -> None:
        """`initialize_from` for rows [N, dim], called by quantizers that contain this one."""
        if self.frozen:
            self._check_device("x", rows.vectors)
            return
        with without_autocast(rows.vectors.device):
            self._initialize_batch(self._project_in(rows), process_group)

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        """`_initialize`, for quantizers that need the shape of the batch as well."""
        self._initialize(projected.vectors[projected.valid], process_group)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Set the codes from vectors z [N, code_dim], N ≥ 0, all of which count."""

    @torch.no_grad()
    def observe_rows(self, rows: Rows, indices: Tensor) -> None:
        """Learn from a forward in training: from rows [N, dim] and the indices that `quantize_rows` gave them."""
        self._observe(self._project_in(rows).vectors.detach(), indices)

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        """Learn from rows z [N, code_dim] and their indices; index −1 does not count."""

    def freeze(self) -> Self:
        """Keep the codes as they are, in training too, until `unfreeze`. `train()` does not undo it.

        `codebook` passes on no gradient, moving averages stop, and `initialize_from`, `warm_start` and the
        replacement of dead codes skip this quantizer and those inside it. Projections and scales still learn, and
        the encoder still learns from its commitment to the codes. `set_codebook` still sets the codes.

        The attribute `frozen` tells the state. Copies and pickles keep it; a `state_dict` does not, just as it
        does not keep `requires_grad`. An optimizer that was built before need not be rebuilt: it skips parameters
        without a gradient, and the gradient that a backward has left is dropped.

        Returns: itself.
        """
        return self._set_frozen(True)

    def unfreeze(self) -> Self:
        """Let the codes learn again. Returns: itself."""
        return self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> Self:
        for module in self.modules():
            if isinstance(module, LearnedCodes):
                module.frozen = frozen
                for parameter in module._code_parameters():
                    parameter.requires_grad_(not frozen)
                    if frozen:
                        parameter.grad = None  # or the next step of an optimizer would still use it
        return self

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that `codebook` is computed from, without those of quantizers inside this one."""
        reparametrized = getattr(self, "parametrizations", nn.Module())  # by torch.nn.utils.parametrize
        return itertools.chain(self.parameters(recurse=False), reparametrized.parameters())

    def accumulate(self, forwards: int) -> Self:
        """Update moving averages once per `forwards` training forwards, from the vectors of all of them.

        Use it when gradients are accumulated over several forwards per optimizer step: the averages then move as
        they would for one large batch. It applies to every quantizer inside this one; quantizers without moving
        averages ignore it. Calling it discards what an incomplete step has gathered so far, which no checkpoint
        contains either.

        Returns: itself.

        Raises: ValueError for forwards < 1.
        """
        forwards = check_at_least("forwards", forwards, 1)
        for module in self.modules():
            if isinstance(module, LearnedCodes):
                module._set_accumulation(forwards)
        return self

    def _set_accumulation(self, forwards: int) -> None:
        """See `accumulate`. Does nothing without moving averages."""

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple["LearnedCodes", Tensor, Tensor]]:
        """Each quantizer with a table, this one or one inside it, and the vectors that chose its codes.

        Args:
            rows: the input of a forward in training.
            indices: the indices that the forward gave them, as rows.

        Yields: (quantizer, vectors [N, code_dim], indices [N]). Where codes have unit norm the vectors do, too;
            index −1 does not count.
        """
        if self.has_table:
            z = self._project_in(rows).vectors
            yield self, z, indices.where(are_finite(z), NO_CODE)

    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """e ← (1 − share) · e + share · target for the codes at `positions`.

        Args:
            positions: [n] int64, rows of the codebook.
            targets: [n, code_dim].
            shares: [n] in (0, 1].

        Raises: TypeError unless this quantizer `has_table`.
        """
        raise TypeError(f"{type(self).__name__} has no table of codes to move")

    def place_codes(self, positions: Tensor, codes: Tensor) -> None:
        """Set the codes at `positions` [n] to `codes` [n, code_dim]. Codes that are averages keep their weight.

        Raises: TypeError unless this quantizer `has_table`.
        """
        self.move_codes(positions, codes, codes.new_ones(len(positions)))

    def share_weight(self, weak: Tensor, strong: Tensor) -> None:
        """Give each code at `weak` [n] and the one at `strong` [n] half of the weight that both have together.

        The weight of a code that is an average is the number of vectors that it stands for. Other codes have none.
        """
