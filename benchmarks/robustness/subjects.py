"""A quantizer of this library, or of the main peer, behind the few calls that the checks make.

Both are built for the same method: with a straight-through gradient if this library's has one, and with codes that
an optimizer learns if this library's are. Everything else is each library's default. Vectors are [1, N, D], which
both accept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import quantizers
from benchmarks.kernels.rivals import PEER

DIM = 64
SIZE = 1024
LEVELS = (8, 5, 5, 5)  # FSQ: 1000 codes of four channels
OURS = "ours"


class NotApplicableError(Exception):
    """The subject lacks the feature that the check is about."""


class Output(NamedTuple):
    """quantized [1, N, D], indices [1, N], and loss, 0-d or None if the quantizer has none."""

    quantized: Tensor
    indices: Tensor
    loss: Tensor | None


class Subject:
    """A quantizer in training mode. Subclasses adapt it to each library's interface."""

    dim = DIM
    size = SIZE
    knows_masks = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module.train()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        out = self.module(x) if mask is None else self.module(x, mask=mask)
        quantized, indices, *loss = out
        return Output(quantized, indices, loss[0].sum() if loss else None)

    def decode(self, indices: Tensor) -> Tensor:
        raise NotImplementedError

    def codes(self) -> Tensor:
        """Return the learned codes [K, D], detached. Raises: NotApplicableError if none are learned."""
        raise NotApplicableError

    def put_codes(self, codes: Tensor) -> None:
        """Make `codes` [K, D] the codes by any means. Raises: NotApplicableError if there is none."""
        raise NotApplicableError

    def set_codebook(self, codes: Tensor) -> None:
        """Set the codes by the library's own method for it. Raises: NotApplicableError if there is none."""
        raise NotApplicableError

    def state(self) -> dict[str, Tensor]:
        """Return a copy of every parameter and buffer, including those that are not saved."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: tensor.detach().clone() for name, tensor in named}

    def train(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """Run forward, a backward with an upstream gradient of ones, and a step of gradient descent."""
        out = self.forward(x.clone().requires_grad_(), mask)
        (out.quantized.sum() + (0 if out.loss is None else out.loss)).backward()
        if parameters := list(self.module.parameters()):
            torch.optim.SGD(parameters, lr=0.1).step()
            self.module.zero_grad()
        return out


class Ours(Subject):
    def decode(self, indices: Tensor) -> Tensor:
        return self.module.decode(indices)

    def codes(self) -> Tensor:
        return self.module.codebook.detach()

    def set_codebook(self, codes: Tensor) -> None:
        if not hasattr(self.module, "set_codebook"):
            raise NotApplicableError
        self.module.set_codebook(codes)

    def put_codes(self, codes: Tensor) -> None:
        self.module.set_codebook(codes)


class OursSimVQ(Ours):
    def put_codes(self, codes: Tensor) -> None:
        self.module.load_state_dict({"basis": codes, "transform.weight": torch.eye(self.dim)})


class OursFSQ(Ours):
    dim, size = len(LEVELS), 1000
    codes = Subject.codes
    put_codes = Subject.put_codes


class PeerVQ(Subject):
    def decode(self, indices: Tensor) -> Tensor:
        return self.module.get_output_from_indices(indices)

    def codes(self) -> Tensor:
        return self.module.codebook.detach()

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        self.module.codebook = codes

    put_codes = set_codebook


class PeerSimVQ(Subject):
    knows_masks = False

    def decode(self, indices: Tensor) -> Tensor:
        return self.module.indices_to_codes(indices)

    def codes(self) -> Tensor:
        return self.module.codebook.detach()

    def put_codes(self, codes: Tensor) -> None:
        self.module.load_state_dict({"frozen_codebook": codes, "code_transform.weight": torch.eye(self.dim)})


class PeerFSQ(Subject):
    dim, size = len(LEVELS), 1000
    knows_masks = False

    def decode(self, indices: Tensor) -> Tensor:
        return self.module.indices_to_codes(indices)


def _ours(name: str, subject: type[Ours] = Ours) -> Callable[[], Subject]:
    sizes: dict[str, Any] = {"codebook_size": None, "levels": LEVELS} if name == "fsq" else {"codebook_size": SIZE}
    return lambda: subject(quantizers.create(name, dim=subject.dim, **sizes))


_SIZES = {"dim": DIM, "codebook_size": SIZE}
_LEARNED = {**_SIZES, "ema_update": False, "learnable_codebook": True}

PEER_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ema_vq": ("VectorQuantize", {**_SIZES, "rotation_trick": False}),
    "vq": ("VectorQuantize", {**_LEARNED, "rotation_trick": False}),
    "rotation_vq": ("VectorQuantize", {**_LEARNED, "rotation_trick": True}),
    "simvq": ("SimVQ", {**_SIZES, "rotation_trick": False}),
    "fsq": ("FSQ", {"levels": list(LEVELS)}),
}
_PEER_SUBJECTS = {"VectorQuantize": PeerVQ, "SimVQ": PeerSimVQ, "FSQ": PeerFSQ}


def peer_call(method: str) -> str:
    """Return the peer's constructor call as Python."""
    class_name, options = PEER_OPTIONS[method]
    return f"{class_name}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _peer(method: str) -> Callable[[], Subject]:
    def build() -> Subject:
        import vector_quantize_pytorch

        class_name, options = PEER_OPTIONS[method]
        return _PEER_SUBJECTS[class_name](getattr(vector_quantize_pytorch, class_name)(**options))

    return build


BUILDERS: dict[str, dict[str, Callable[[], Subject]]] = {
    OURS: {
        "ema_vq": _ours("ema_vq"),
        "vq": _ours("vq"),
        "rotation_vq": _ours("rotation_vq"),
        "simvq": _ours("simvq", OursSimVQ),
        "fsq": _ours("fsq", OursFSQ),
    },
    PEER: {method: _peer(method) for method in PEER_OPTIONS},
}
METHODS = tuple(BUILDERS[OURS])
