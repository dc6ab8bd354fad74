"""Quantizers as graphs: modules for `torch.export`, and graphs without this library's operations, for ONNX.

A program of `Encode` or `Decode` runs where quantizers is imported:

    program = torch.export.export(Encode(quantizer), (x,), dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}])
    torch.export.save(program, "encode.pt2")

and without it in ONNX Runtime (the extra `onnx` brings what PyTorch needs to write it):

    torch.onnx.export(plain(program), dynamo=True).save("encode.onnx")

A whole model needs neither: in evaluation mode `torch.onnx.export(model, (x,))` and `torch.jit.trace(model, (x,))`
write its quantizers in PyTorch's own operations. `torch.jit.script` cannot compile one, and says so.
"""

import torch
from torch import Tensor, nn

from quantizers.core.base import Quantizer
from quantizers.kernels.decompositions import decompositions


class Encode(nn.Module):
    """`quantizer.encode` as a module's forward, which is what exporters take."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.quantizer.encode(x, mask)


class Decode(nn.Module):
    """`quantizer.decode` as a module's forward; an index outside [−1, K) gives NaN there."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, indices: Tensor) -> Tensor:
        return self.quantizer.decode(indices)


def plain(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program in PyTorch's own operations, which `torch.onnx.export` translates.

    The search runs in float64, in blocks of codes; of codes that are equally near, up to that rounding, it takes
    the lowest.

    Raises: ValueError for a program with an operation that has no such form: one of a forward in training mode.
    """
    replaced: torch.export.ExportedProgram = program.run_decompositions(decompositions())
    left = {str(node.target) for node in replaced.graph.nodes if str(node.target).startswith("quantizers.")}
    if left:
        raise ValueError(f"{', '.join(sorted(left))} cannot be written in PyTorch's own operations")
    return replaced
