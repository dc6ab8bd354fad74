"""A training step of a quantizer: forward, loss, statistics and backward, by this library and by the main peer.

Both pass the gradient straight through or by the rotation trick, weight the commitment equally, and receive the
same upstream gradient. For a learned codebook, the peer's loss moves vectors and codes with one weight, so this
library's does here as well. In the place of an optimizer, a small step of noise moves learned codes between two
runs (motion.py), those of both libraries alike. Averages move by themselves.

Sampled codes (Gumbel) differ in how they learn: ours by gradients, the peer's by averages, since it refuses to
learn them otherwise. Both return the sampled code with the gradient of a softmax over all codes, and no other loss
of theirs has a weight here but this library's divergence.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import quantizers
from benchmarks.kernels.motion import Moving, step_length
from benchmarks.kernels.rivals import PEER, Rival, WithSetup, Work

WEIGHT = 0.25
DECAY = 0.99

VQ = "VQ"
EMA = "EMA VQ"
SIMVQ = "SimVQ"
ROTATION = "VQ, rotation"
GUMBEL = "Gumbel"
PEER_VQ = f"{PEER}, learned"
PEER_EMA = f"{PEER}, EMA"
PEER_SIMVQ = f"{PEER}, SimVQ"
PEER_ROTATION = f"{PEER}, rotation"
PEER_GUMBEL = f"{PEER}, Gumbel"
PACKAGE = "vector_quantize_pytorch"

Prepare = Callable[[Tensor, Tensor], Work]
Forward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
Ours = quantizers.VectorQuantizer | quantizers.EMAVectorQuantizer | quantizers.SimVQ | quantizers.GumbelQuantizer


@dataclass(frozen=True)
class Pair:
    """The training step of one method, by this library and by the peer."""

    ours: Rival
    peer: Rival


def prepare_vq(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.VectorQuantizer(dim, size, commitment_weight=WEIGHT, codebook_weight=WEIGHT)
    return _prepare_ours(module, x, codebook)


def prepare_ema(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.EMAVectorQuantizer(dim, size, decay=DECAY, commitment_weight=WEIGHT)
    return _prepare_ours(module, x, codebook)


def prepare_simvq(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.SimVQ(dim, size, commitment_weight=WEIGHT, codebook_weight=1.0)
    return _prepare_ours(module, x, codebook)


def prepare_rotation(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    module = quantizers.VectorQuantizer(
        dim, size, gradient="rotation", commitment_weight=WEIGHT, codebook_weight=WEIGHT
    )
    return _prepare_ours(module, x, codebook)


def prepare_gumbel(x: Tensor, codebook: Tensor) -> Work:
    size, dim = codebook.shape
    return _prepare_ours(quantizers.GumbelQuantizer(dim, size, logits="distance", hard=True), x, codebook)


def prepare_peer_vq(x: Tensor, codebook: Tensor) -> Work:
    return _prepare_peer(x, codebook, learnable_codebook=True, ema_update=False)


def prepare_peer_ema(x: Tensor, codebook: Tensor) -> Work:
    return _prepare_peer(x, codebook, decay=DECAY)


def prepare_peer_rotation(x: Tensor, codebook: Tensor) -> Work:
    return _prepare_peer(x, codebook, rotation_trick=True, learnable_codebook=True, ema_update=False)


def prepare_peer_gumbel(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the peer's sampling. Its own straight-through gradient would discard that of the sample, so it is
    turned off."""
    return _prepare_peer(
        x,
        codebook,
        decay=DECAY,
        commitment_weight=0.0,
        stochastic_sample_codes=True,
        straight_through=True,
        route_gradients_to_input=False,
    )


def prepare_peer_simvq(x: Tensor, codebook: Tensor) -> Work:
    from vector_quantize_pytorch import SimVQ as PeerSimVQ

    size, dim = codebook.shape
    module = PeerSimVQ(dim, size, rotation_trick=False, input_to_quantize_commit_loss_weight=WEIGHT).to(x.device)
    with torch.no_grad():
        module.frozen_codebook.copy_(codebook)
        nn.init.eye_(module.code_transform.weight)
    return _step(_batched(module), x, codebook, module.parameters())


def _prepare_ours(module: Ours, x: Tensor, codebook: Tensor) -> Work:
    module.to(x.device).train()
    module.set_codebook(codebook)
    return _step(module, x, codebook, module.parameters())


def _prepare_peer(x: Tensor, codebook: Tensor, **options: bool | float) -> Work:
    from vector_quantize_pytorch import VectorQuantize

    size, dim = codebook.shape
    options = {"commitment_weight": WEIGHT, "rotation_trick": False, **options}
    module = VectorQuantize(dim=dim, codebook_size=size, **options).to(x.device)
    with torch.no_grad():
        module.codebook = codebook
        module._codebook.embed_avg.copy_(codebook[None])
    # Each step reads this flag. On a GPU the host would wait for it, and no graph could be captured.
    module._codebook.initted = torch.tensor(True)
    return _step(_batched(module), x, codebook, module.parameters())


def _batched(module: nn.Module) -> Forward:
    """Return a function of vectors [N, D] of a module that expects them in a batch."""

    def forward(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, loss = module(vectors[None])
        return quantized[0], indices[0], loss.sum()  # one element, perhaps on its own axis

    return forward


def _step(forward: Forward | nn.Module, x: Tensor, codebook: Tensor, parameters: Iterable[nn.Parameter]) -> Work:
    """Return a run that returns indices, quantized, loss, and the gradients of x and of every parameter that has
    one. On a CPU the parameters, which are learned codes, move between two runs.
    """
    leaf = x.clone().requires_grad_()
    learned = list(parameters)
    upstream = torch.randn(x.shape, generator=torch.Generator(x.device).manual_seed(1), device=x.device)

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


def _pair(
    ours: str, prepare_ours: Prepare, peer: str, prepare_peer: Prepare, *, matrices: int, pairs: float = math.inf
) -> Pair:
    return Pair(
        Rival(ours, prepare_ours, against=ours, pairs=pairs),
        Rival(peer, prepare_peer, against=ours, package=PACKAGE, matrices=matrices),
    )


# Sampling computes the logits of all pairs anew in the backward pass: a nanosecond a pair at D 256.
PAIRS = (
    _pair(VQ, prepare_vq, PEER_VQ, prepare_peer_vq, matrices=7),
    _pair(EMA, prepare_ema, PEER_EMA, prepare_peer_ema, matrices=7),
    _pair(SIMVQ, prepare_simvq, PEER_SIMVQ, prepare_peer_simvq, matrices=2),
    _pair(ROTATION, prepare_rotation, PEER_ROTATION, prepare_peer_rotation, matrices=7),
    _pair(GUMBEL, prepare_gumbel, PEER_GUMBEL, prepare_peer_gumbel, matrices=9, pairs=2**31),
)
STEPS = tuple(rival for pair in PAIRS[:2] for rival in (pair.ours, pair.peer))  # those of `make kernels`
