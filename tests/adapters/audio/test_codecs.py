"""What the contracts of codecs with stand-ins have in common."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from quantizers import plug_in
from tests.adapters.audio import (
    test_academicodec,
    test_dualcodec,
    test_qwen3_tts,
    test_snac,
    test_speechtokenizer,
    test_wavtokenizer,
)

MODULES = (
    test_academicodec,
    test_dualcodec,
    test_qwen3_tts,
    test_snac,
    test_speechtokenizer,
    test_wavtokenizer,
)
CODECS: dict[str, Callable[[], nn.Module]] = {
    contract: build for module in MODULES for contract, build in module.ORIGINALS.items()
}
every_contract = pytest.mark.parametrize("contract", CODECS)


def plugged(contract: str, name: str = "vq") -> tuple[Any, Tensor]:
    """An adapter, and vectors in the shape that it quantizes."""
    original = CODECS[contract]()
    adapter = plug_in(copy.deepcopy(original), name).eval()
    assert adapter.contract == contract
    torch.manual_seed(1)
    return adapter, adapter.example(original, adapter.read_spec(original))


def tensors(result: Any) -> Iterator[Tensor]:
    """The tensors in a result."""
    leaves = tree_leaves(list(vars(result).values()) if hasattr(result, "__dict__") else result)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


@every_contract
def test_it_compiles_without_a_break(contract: str) -> None:
    adapter, z = plugged(contract)
    compiled = torch.compile(adapter, fullgraph=True, backend="eager")
    _, result = next(adapter.calls(compiled, z))
    _, expected = next(adapter.calls(adapter, z))
    for found, other in zip(tensors(result), tensors(expected), strict=True):
        assert torch.equal(found, other)


@every_contract
@torch.no_grad()
def test_a_model_in_half_precision_gets_its_dtype(contract: str) -> None:
    adapter, z = plugged(contract)
    for call, result in adapter.bfloat16().calls(adapter, z.bfloat16()):
        vectors = [of for of in tensors(result) if of.is_floating_point() and of.numel() >= z[..., 0].numel()]
        assert {of.dtype for of in vectors} <= {torch.bfloat16}, call


@every_contract
@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_a_model_on_meta_gets_a_quantizer_there(contract: str, name: str) -> None:
    adapter = plug_in(CODECS[contract]().to("meta"), name)
    assert {tensor.device.type for tensor in adapter.state_dict().values()} == {"meta"}
