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
    assert repr(VectorQuantizer(4, 8)) == (
        "VectorQuantizer(dim=4, codebook_size=8, commitment_weight=0.25, codebook_weight=1.0)"
    )
    assert repr(EMAVectorQuantizer(4, 8, gradient="rotation")) == (
        "EMAVectorQuantizer(dim=4, codebook_size=8, gradient='rotation', decay=0.99, commitment_weight=0.25)"
    )
    assert "code_dim" not in repr(VectorQuantizer(4, 8, code_dim=4))
    assert "code_dim=2" in repr(VectorQuantizer(4, 8, code_dim=2))


def test_parts_that_do_nothing_are_left_out() -> None:
    assert repr(quantizers.create("bypass", dim=4, codebook_size=8, quantizer="nsvq", probability=0.5)) == (
        "BypassQuantizer(\n"
        "  dim=4, codebook_size=8, probability=0.5\n"
        "  (quantizer): NSVQ(dim=4, codebook_size=8)\n"
        ")"
    )
    assert "blends" not in repr(quantizers.create("multiscale", dim=4, codebook_size=8))
    assert "blends" in repr(quantizers.create("var", dim=4, codebook_size=8))


def test_equal_components_are_shown_once() -> None:
    assert repr(quantizers.create("residual", dim=4, codebook_size=8, quantizer="nsvq", num_quantizers=3)) == (
        "ResidualQuantizer(\n"
        "  dim=4, codebook_size=8, num_quantizers=3\n"
        "  (quantizers): ModuleList(\n"
        "    (0-2): 3 x NSVQ(dim=4, codebook_size=8)\n"
        "  )\n"
        ")"
    )


def test_sizes_that_differ_are_all_shown() -> None:
    text = repr(quantizers.create("residual", dim=4, codebook_size=[5, 16]))
    assert "dim=4, codebook_size=(5, 16), num_quantizers=2" in text
    around = repr(quantizers.create("bypass", dim=4, codebook_size=[5, 16], quantizer="residual"))
    assert around.count("codebook_size=(5, 16)") == 2
    nested = repr(quantizers.create("grouped", dim=4, codebook_size=8, quantizer="residual", num_quantizers=3))
    assert "dim=4, codebook_size=8, num_codebooks=6, num_groups=2" in nested


def test_levels_are_shown_with_the_number_of_codes() -> None:
    assert repr(quantizers.FSQ(2, (8, 5))) == "FSQ(dim=2, levels=(8, 5), codebook_size=40, bound='tanh')"


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
