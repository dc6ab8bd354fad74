"""Orders of codes for the pruned search, and searches in them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from quantizers.kernels.nearest.triton.nearest import search_of
from quantizers.kernels.nearest.triton.pruned.order import CodeOrder, build_order, orders
from tests.triton.interpreter import device

LEAF = 32  # the smallest
ORDERS = ("of these codes", "of other codes", "random")


def order_of(codebook: Tensor, kind: str = ORDERS[0], leaf: int = LEAF) -> CodeOrder:
    """The order of the codes [H, K, D], that of others of this shape, or the first with its codes permuted."""
    if kind == "of other codes":
        return build_order(torch.randn(codebook.shape).to(codebook.device), leaf)
    order = build_order(codebook, leaf)
    if kind == "random":
        permutation = torch.rand(order.codes.shape).argsort(1).to(codebook.device)
        order = order._replace(codes=order.codes.gather(1, permutation))
    return order


@contextlib.contextmanager
def pruned(x: Tensor, codebook: Tensor, order: CodeOrder) -> Iterator[None]:
    """Searches of this shape use the order in this block."""
    search = search_of(x, codebook)
    orders[search] = order
    try:
        yield
    finally:
        del orders[search]


def clustered_data(rows: int, size: int, d: int, clusters: int = 12) -> tuple[Tensor, Tensor]:
    """Vectors [1, rows, d] and codes [1, size, d] from the same few clusters, as encoders make them."""
    centres = torch.randn(clusters, d)
    x, codebook = (
        centres[torch.randint(clusters, (count,))] + 0.1 * torch.randn(count, d) for count in (rows, size)
    )
    return x[None].to(device()), codebook[None].to(device())
