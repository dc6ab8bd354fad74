"""What the runner of the peers' test suites makes of their outcomes, and how its plugin plugs in."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.peers import plugin
from benchmarks.peers.__main__ import rows, table
from quantizers.adapters import plugged
from quantizers.core.state.initialization import SelfInitialized
from tests.adapters.test_plugging import Model, VectorQuantizer2

OWN = {"A::one": "passed", "A::two": "passed", "A::three": "failed", "A::four": "skipped", "B::five": "skipped"}


def test_what_passes_with_the_own_quantizer_is_compared() -> None:
    ours = {
        "A::one": "passed",
        "A::two": "failed",
        "A::three": "failed",
        "A::four": "skipped",
        "B::five": "failed",
    }
    (row,) = rows("library", "vq", "constructor", OWN, ours)
    assert (row["tests"], row["run"], row["passed"], row["failed"]) == ("A", 2, 1, ["two"])
    assert table([row]).splitlines()[-1] == "| A | vq | constructor | 1 | 2 | `two` |"


class Loaded(nn.Module):
    """A model that its library saves and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(VectorQuantizer2())

    @classmethod
    def from_pretrained(cls, folder: str) -> Any:
        return cls()


@pytest.mark.parametrize("documented", [True, False])
def test_a_quantizer_is_in_each_model_that_a_test_builds(
    documented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Loaded):
        def __init__(self) -> None:
            super().__init__()

    read: list[Any] = []
    monkeypatch.setattr(plugin, "from_pretrained", lambda cls, folder: read.append(cls.from_pretrained(folder)))
    plugin._patch(Own, "vq", documented=documented)
    assert list(plugged(Own())) == ["model.vq"]
    loaded = Own.from_pretrained("folder")
    if documented:  # ours reads what the library built without a quantizer
        assert not plugged(read[0])
    else:
        assert list(plugged(loaded)) == ["model.vq"]


def test_a_base_model_within_another_is_plugged_into_once() -> None:
    class Base(Loaded):
        def __init__(self) -> None:
            super().__init__()

    class Head(Loaded):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.base = Base()
            assert not plugged(self)

    for cls in (Base, Head):
        plugin._patch(cls, "vq", documented=False)
    assert list(plugged(Base())) == ["model.vq"]
    assert list(plugged(Head())) == ["base.model.vq"]


def test_one_seed_for_each_draw() -> None:
    class Drawn(SelfInitialized):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.normal_(self.weight)

    assert Drawn in plugin._subclasses(SelfInitialized)
    assert not torch.equal(Drawn().weight, Drawn().weight)
    plugin._seed_draws(Drawn)
    assert torch.equal(Drawn().weight, Drawn().weight)
