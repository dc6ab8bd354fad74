"""Options that several constructors share, through `**options: Unpack[...]`."""

import inspect
from typing import Annotated, Any, TypedDict

import pytest
from typing_extensions import Unpack

import quantizers
from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.options import UnknownOptionError, checked
from quantizers.core.arguments.shared import Default


class Shared(TypedDict, total=False):
    weight: Annotated[Weight, Default(0.5)]
    flag: Annotated[bool, Default(False)]


@checked
def collect(dim: int, *, own: int = 1, **options: Unpack[Shared]) -> dict[str, object]:
    return {"dim": dim, "own": own, **options}


def test_shared_options_are_parameters_with_defaults() -> None:
    parameters = inspect.signature(collect).parameters
    assert {name: item.default for name, item in parameters.items() if name != "dim"} == {
        "own": 1,
        "weight": 0.5,
        "flag": False,
    }
    assert parameters["weight"].annotation == Weight
    assert not any(item.kind is item.VAR_KEYWORD for item in parameters.values())


def test_the_function_gets_every_shared_option() -> None:
    assert collect(2) == {"dim": 2, "own": 1, "weight": 0.5, "flag": False}
    assert collect(2, flag=1, weight=0) == {"dim": 2, "own": 1, "weight": 0.0, "flag": True}


def test_shared_options_are_checked_and_unknown_ones_are_named() -> None:
    with pytest.raises(ValueError, match="weight is -1, expected a finite number of at least 0"):
        collect(2, weight=-1)
    with pytest.raises(UnknownOptionError, match=r"no option 'wieght', did you mean 'weight'.*own, weight, flag"):
        collect(2, wieght=1)


def test_a_shared_option_without_a_default_is_an_error() -> None:
    class Undefined(TypedDict, total=False):
        weight: Weight

    with pytest.raises(TypeError, match="option weight has 0 defaults, expected one Default"):

        @checked
        def collect(**options: Unpack[Undefined]) -> None: ...


@pytest.mark.parametrize("name", quantizers.available())
def test_weights_and_axes_are_refused_by_every_class_that_takes_them(name: str) -> None:
    sizes: dict[str, Any] = {"dim": 6, "codebook_size": 64}
    options = inspect.signature(type(quantizers.create(name, **sizes))).parameters
    for option, wrong in [("commitment_weight", float("nan")), ("commitment_weight", -1), ("channel_dim", "x")]:
        if option in options:
            with pytest.raises(
                ValueError, match=f"{option} is .*, expected (an integer|a finite number of at least 0)"
            ):
                quantizers.create(name, **sizes, **{option: wrong})
