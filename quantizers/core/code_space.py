"""From a model's vectors to the space of the codes and back, in float32 whatever casts surround them."""

import itertools

import torch
from torch import Tensor, nn

from quantizers.core.layout import Rows
from quantizers.core.projection import Projection
from quantizers.core.state.half_state import call_widened, warn_of_half_state
from quantizers.core.state.index_format import NAME as INDEX_FORMAT
from quantizers.core.state.quantizer_state import QuantizerState
from quantizers.kernels.common.vectors import are_finite, compute_dtype


class CodeSpace(QuantizerState):
    """State whose codes have `code_dim` channels, behind vectors of `dim`.

    Where the two differ, a learned linear layer projects in and another one projects out.
    """

    dim: int
    code_dim: int

    _half_state_is_known: bool = False
    _has_run: bool = False

    def __init__(self, dim: int, code_dim: int | None) -> None:
        super().__init__()
        self.dim = dim
        self.code_dim = dim if code_dim is None else code_dim
        projects = self.code_dim != dim
        self.project_in: nn.Module = Projection(dim, self.code_dim) if projects else nn.Identity()
        self.project_out: nn.Module = Projection(self.code_dim, dim) if projects else nn.Identity()

    def _project_in(self, rows: Rows) -> Rows:
        """Rows [N, dim] in code space [N, code_dim]. A projection may overflow: such rows are no longer valid."""
        self._check_device("x", rows.vectors)
        if isinstance(self.project_in, nn.Identity):
            return rows
        z = self._project(self.project_in, rows.vectors)
        valid = rows.valid & are_finite(z)
        return rows.with_vectors(z.where(valid[:, None], 0.0), valid)

    @staticmethod
    def _project(projection: nn.Module, rows: Tensor) -> Tensor:
        if isinstance(projection, nn.Identity):
            return rows
        parameters = [*projection.parameters(), rows]
        dtype = compute_dtype(parameters[0])
        return call_widened(projection, rows.to(dtype)).to(rows.dtype)

    def _check_device(self, name: str, tensor: Tensor) -> None:
        """Raise ValueError for a tensor on another device than this module's own parameters and buffers.

        Modules inside it do not count: offloading may leave them elsewhere until they are called.
        """
        own = itertools.chain(self._parameters.items(), self._buffers.items())
        states = (value for name_of, value in own if value is not None and name_of != INDEX_FORMAT)
        device = next(states, tensor).device
        if device != tensor.device:
            raise ValueError(f"{name} came on {tensor.device}, expected {device}, where the quantizer is")

    def _warn_of_half_state(self) -> None:
        """Warn once about state in half precision: casts leave it in float32, but a wrapper may replace it."""
        if torch.compiler.is_compiling() or self._half_state_is_known:
            return
        self._half_state_is_known = warn_of_half_state(self, thoroughly=not self._has_run)
        if not self._has_run:
            self._has_run = True

    def __getstate__(self) -> dict[str, object]:
        state: dict[str, object] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in ("_half_state_is_known", "_has_run")}
