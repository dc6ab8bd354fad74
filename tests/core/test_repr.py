"""What `repr` shows of a quantizer."""

import inspect
import math
import re
from typing import Any

import pytest

import quantizers
from quantizers import EMAVectorQuantizer, GumbelQuantizer, VectorQuantizer, configuration
from tests.cases import Case, every_case, halved


def is_shown(name: str, value: Any, text: str) -> bool:
    """Whether `name=value` is in a text: numbers to four digits, sequences in brackets of any kind."""
    if isinstance(value, list):
        return re.search(rf"\b{name}=[\[(]{re.escape(', '.join(map(repr, value)))}", text) is not None
    if isinstance(value, float):
        return any(
            math.isclose(float(shown), value, rel_tol=1e-3) for shown in re.findall(rf"\b{name}=([-+.e\d]+)", text)
        )
    return re.search(rf"\b{name}={re.escape(repr(value))}", text) is not None


def is_plain(value: Any) -> bool:
    """Whether an option is a number, a string or a list of numbers in a configuration, not an object."""
    return (
        all(isinstance(item, int | float) for item in value)
        if isinstance(value, list)
        else type(value) is not dict
    )


@every_case
def test_options_that_differ_from_their_defaults_are_shown(case: Case) -> None:
    quantizer = case.build()
    text = repr(quantizer)
    defaults = {name: each.default for name, each in inspect.signature(type(quantizer)).parameters.items()}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    for name, value in configuration(quantizer)["arguments"].items():
        if is_plain(value) and value != defaults[name]:
            assert is_shown(name, value, text), f"{name}={value!r} is not in {text}"


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "ibq"])
def test_weights_are_shown_at_their_defaults_unless_they_are_zero(name: str) -> None:
    quantizer = quantizers.create(name, dim=4, codebook_size=8)
    assert f"commitment_weight={quantizer.commitment_weight}" in repr(quantizer)
    assert "weight=0.0" not in repr(quantizers.create("diveq", dim=4, codebook_size=8))


def test_repr_is_short() -> None:
    assert repr(VectorQuantizer(4, 8)).splitlines()[1] == (
        "  dim=4, codebook_size=8, distance='euclidean', gradient='straight_through', commitment_weight=0.25, "
        "codebook_weight=1.0"
    )
    assert "code_dim" not in repr(VectorQuantizer(4, 8, code_dim=4))
    assert "code_dim=2" in repr(VectorQuantizer(4, 8, code_dim=2))


def test_values_assigned_later_are_shown() -> None:
    quantizer = EMAVectorQuantizer(4, 8)
    quantizer.decay = 0.5
    quantizer.process_group = None
    gumbel = GumbelQuantizer(4, 8)
    gumbel.temperature = 0.1  # type: ignore[assignment]
    assert "decay=0.5, process_group=None" in repr(quantizer)
    assert "temperature=0.1," in repr(gumbel)


def test_a_gradient_function_is_named() -> None:
    assert "gradient=function halved" in repr(VectorQuantizer(4, 8, gradient=halved))
