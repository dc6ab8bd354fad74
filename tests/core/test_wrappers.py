"""A model in a wrapper has the names and the signature that it has without."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from quantizers import VectorQuantizer
from quantizers.composite.composed import outermost
from quantizers.core.wrappers import named_modules, unwrapped, without_wrappers
from quantizers.monitoring.watch import watch
from tests.cases import DIM, batch


class Codec(nn.Module):
    """With a submodule that is called as wrappers call what they wrap, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 8))
        self.module = VectorQuantizer(DIM, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.encoder(x).quantized).quantized


class Passing(nn.Module):
    """A wrapper of a user's own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor, **kwargs: Tensor) -> object:
        return self.module(*args, **kwargs)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [
    compiled,
    nn.DataParallel,
    AveragedModel,
    checkpoint_wrapper,
    Passing,
    lambda model: nn.DataParallel(compiled(model)),
    lambda model: compiled(Passing(model)),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_names_are_those_of_the_model_inside(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Of the whole, and of a part that is wrapped by itself."""
    codec = Codec()
    names = [name for name, _ in codec.named_modules()]
    whole = wrap(Codec())
    assert [name for name, _ in named_modules(codec)] == names
    assert list(dict.fromkeys(name for name, _ in named_modules(whole))) == names
    assert isinstance(unwrapped(whole), Codec)
    codec.encoder = wrap(codec.encoder)
    codec.module = wrap(codec.module)
    assert list(dict.fromkeys(name for name, _ in named_modules(codec))) == names
    assert unwrapped(codec) is codec
    assert list(outermost(codec)) == list(outermost(whole)) == ["encoder.1", "module"]


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, Passing])
def test_a_watched_model_has_the_same_scalars(wrap: Callable[[nn.Module], nn.Module]) -> None:
    expected = None
    for model in (Codec(), wrap(Codec())):
        with watch(model) as watched:
            model(batch(20))
        names = list(watched.scalars())
        assert expected in (None, names)
        expected = names
    assert expected is not None
    assert expected[0] == "encoder.1/utilization"


def test_names_of_a_checkpoint_lose_what_wrappers_put_in() -> None:
    assert without_wrappers("module._orig_mod.encoder.quantizer") == "encoder.quantizer"
    assert without_wrappers("encoder._orig_mod.0") == "encoder.0"
    assert without_wrappers("_orig_mod") == without_wrappers("") == ""
    assert without_wrappers("modules.submodule") == "modules.submodule"
