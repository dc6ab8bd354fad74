"""A training step of a quantizer: forward, loss, statistics and backward, by this library and by the main peer.

Both pass the gradient straight through, weight the commitment equally, and receive the same upstream gradient. For
a learned codebook, the peer's loss moves vectors and codes with one weight, so this library's does here as well.
In the place of an optimizer, a small step of noise moves learned codes between two runs (motion.py), those of both
libraries alike. Averages move by themselves.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

import quantizers
from benchmarks.kernels.motion import Moving, step_length
from benchmarks.kernels.rivals import PEER, Rival, WithSetup, Work

WEIGHT = 0.25
DECAY = 0.99

VQ = "VQ"
EMA = "EMA VQ"
GUMBEL = "Gumbel"
PEER_VQ = f"{PEER}, learned"
PEER_EMA = f"{PEER}, EMA"

Forward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def prepare_vq(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.VectorQuantizer(dim, size, commitment_weight=WEIGHT, codebook_weight=WEIGHT)
    return _prepare_ours(module, x, codebook)


def prepare_ema(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.EMAVectorQuantizer(dim, size, decay=DECAY, commitment_weight=WEIGHT)
    return _prepare_ours(module, x, codebook)


def prepare_gumbel(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    return _prepare_ours(quantizers.GumbelQuantizer(dim, size, logits="distance"), x, codebook)


def prepare_peer_vq(x: Tensor, codebook: Tensor) -> Work:
    return _prepare_peer(x, codebook, learnable_codebook=True, ema_update=False)


def prepare_peer_ema(x: Tensor, codebook: Tensor) -> Work:
    return _prepare_peer(x, codebook, decay=DECAY)


def _prepare_ours(
    module: quantizers.VectorQuantizer | quantizers.EMAVectorQuantizer | quantizers.GumbelQuantizer,
    x: Tensor,
    codebook: Tensor,
) -> Work:
    module.to(x.device).train()
    module.set_codebook(codebook)
    return _step(module, x, codebook, module.parameters())


def _prepare_peer(x: Tensor, codebook: Tensor, **options: bool | float) -> Work:
    from vector_quantize_pytorch import VectorQuantize

    size, dim = codebook.shape
    module = VectorQuantize(
        dim=dim, codebook_size=size, commitment_weight=WEIGHT, rotation_trick=False, **options
    ).to(x.device)
    with torch.no_grad():
        module.codebook = codebook
        module._codebook.embed_avg.copy_(codebook[None])

    def forward(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, loss = module(vectors[None])
        return quantized[0], indices[0], loss.sum()  # one element, on its own axis

    return _step(forward, x, codebook, module.parameters())


def _step(forward: Forward | nn.Module, x: Tensor, codebook: Tensor, parameters: Iterable[nn.Parameter]) -> Work:
    """Return a run that returns indices, quantized, loss, and the gradients of x and of every parameter that has
    one. On a CPU the parameters, which are learned codes, move between two runs.
    """
    leaf = x.clone().requires_grad_()
    learned = list(parameters)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.device)

    def run() -> tuple[Tensor, ...]:
        for tensor in (leaf, *learned):
            tensor.grad = None
        quantized, indices, loss = forward(leaf)
        ((quantized * upstream).sum() + loss).backward()
        gradients = [tensor.grad for tensor in (leaf, *learned) if tensor.grad is not None]
        return indices, quantized.detach(), loss.detach(), *gradients

    if x.device.type != "cpu":
        return run
    moving = [Moving(parameter.detach(), step_length(x, codebook)) for parameter in learned]
    return WithSetup(lambda: [each.step() for each in moving], run)


STEPS = (
    Rival(VQ, prepare_vq, against=VQ),
    Rival(PEER_VQ, prepare_peer_vq, against=VQ, package="vector_quantize_pytorch", matrices=7),
    Rival(EMA, prepare_ema, against=EMA),
    Rival(PEER_EMA, prepare_peer_ema, against=EMA, package="vector_quantize_pytorch", matrices=7),
)
