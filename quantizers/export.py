"""Quantizers as graphs: modules for `torch.export`, and graphs without this library's operations, for ONNX.

`quantizers.export` is this module. A program of `Encode` or `Decode` runs where quantizers is imported:

    program = torch.export.export(Encode(quantizer), (x,), dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}])
    torch.export.save(program, "encode.pt2")

It also runs in ONNX Runtime, without this library (the extra `onnx` installs what PyTorch needs for it):

    torch.onnx.export(plain(program), dynamo=True).save("encode.onnx")

A whole model needs neither of them: in evaluation mode, `torch.onnx.export(model, (x,))` and
`torch.jit.trace(model, (x,))` write its quantizers in PyTorch's own operations. `torch.jit.script` cannot compile
a quantizer, and raises TypeError.
"""

import torch
from torch import Tensor, nn

from quantizers.core.base import Quantizer
from quantizers.kernels.decompositions import decompositions


class Encode(nn.Module):
    """A module whose forward is `quantizer.encode`, for exporters.

        >>> import torch, quantizers
        >>> encode = quantizers.export.Encode(quantizers.FSQ(2, levels=(3, 3)))
        >>> program = torch.export.export(encode, (torch.zeros(5, 2),))
        >>> program.module()(torch.zeros(5, 2))
        tensor([4, 4, 4, 4, 4])

    Args: quantizer: the quantizer to export.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.quantizer.encode(x, mask)


class Decode(nn.Module):
    """A module whose forward is `quantizer.decode`, for exporters.

    In an exported program, an index outside [−1, K) gives NaN instead of an error.

    Args: quantizer: the quantizer to export.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, indices: Tensor) -> Tensor:
        return self.quantizer.decode(indices)


def plain(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Rewrite a program in PyTorch's own operations, so that `torch.onnx.export` can translate it.

    The search for the nearest code runs in float64, in blocks of codes. Among codes that are equally near, up to
    rounding, it returns the lowest index.

    Raises: ValueError for a program with an operation that cannot be rewritten, such as one of a forward in
        training mode.
    """
    replaced: torch.export.ExportedProgram = program.run_decompositions(decompositions())
    left = {str(node.target) for node in replaced.graph.nodes if str(node.target).startswith("quantizers.")}
    if left:
        raise ValueError(f"{', '.join(sorted(left))} cannot be rewritten in PyTorch's own operations")
    return replaced
