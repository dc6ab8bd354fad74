"""Quantizers of LlamaGen's relatives and of Open-MAGVIT2's, plugged in, changed, saved and loaded."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from quantizers import plug_in
from quantizers.adapters.recognition import contract_of
from quantizers.serialization.configuration import configuration, rebuild
from tests.adapters.common import METHODS, one_in_three
from tests.adapters.images import (
    test_gigatok,
    test_gigatok_fsq,
    test_ibq,
    test_llamagen,
    test_open_magvit2,
    test_wetok,
)

MODULES = (test_gigatok, test_gigatok_fsq, test_ibq, test_llamagen, test_open_magvit2, test_wetok)
ORIGINALS = {name: make for module in MODULES for name, make in module.ORIGINALS.items()}
KEPT = {"gigatok": "rotation_vq", "gigatok_fsq": "fsq", "ibq": "ibq", "llamagen": "vq"}


def pairs() -> list[Any]:
    """Each contract with each method, most of them in `make fuzz` only, and with its own codes."""
    found = [
        pytest.param(contract, method, True, id=f"{contract}-{method}-kept") for contract, method in KEPT.items()
    ]
    for row, contract in enumerate(ORIGINALS):
        for column, method in enumerate(METHODS):
            marks = one_in_three(row, column)
            found.append(pytest.param(contract, method, False, marks=marks, id=f"{contract}-{method}"))
    return found


def inputs(original: nn.Module) -> Tensor:
    spec = contract_of(original).read_spec(original)
    return torch.randn(2, spec.dim, 4, 3, generator=torch.Generator().manual_seed(1))


def results(adapter: nn.Module, x: Tensor) -> list[Any]:
    return [leaf for leaf in tree_leaves(adapter.eval()(x)) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize(("contract", "method", "keep"), pairs())
def test_comes_back_as_it_was(contract: str, method: str, keep: bool) -> None:
    x = inputs(ORIGINALS[contract]())
    model, other = (plug_in(ORIGINALS[contract](), method, keep_codebook=keep) for _ in range(2))
    model.train()(x)  # averages move
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    expected = results(model, x)
    assert expected
    for loaded, before in zip(results(other, x), expected, strict=True):
        assert torch.equal(loaded, before)
    quantizer = rebuild(configuration(model.quantizer))
    quantizer.load_state_dict(model.quantizer.state_dict())
    assert torch.equal(quantizer.eval().encode(x), model.quantizer.encode(x))
