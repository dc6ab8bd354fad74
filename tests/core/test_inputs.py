"""Values from configuration systems mean what they say; what means nothing is a sentence that names the option.

The law, over every registered name and every option that it has: an option given in another form of the same value
builds the same quantizer, whose configuration, attributes and folder hold Python's own numbers.
"""

import contextlib
import copy
import enum
import inspect
import json
import math
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import (
    FSQ,
    EMAVectorQuantizer,
    GroupedQuantizer,
    GumbelQuantizer,
    MultiScaleQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
)
from quantizers.core.arguments.checks import check_for
from quantizers.core.arguments.options import NAMED, UnknownOptionError, signature_of
from quantizers.core.registry import _BUILDERS
from quantizers.serialization.configuration import configuration, rebuild
from quantizers.training.regularizers import Entropy, Orthogonality, Wasserstein
from tests.cases import Case, assert_same_state, batch, cases_where, every_case, index_shape, state_of
from tests.versions import TORCH, needs_python

# Every option of every name, with a value that is not its default where there is another.

SIZES: dict[str, Any] = {"dim": 4, "codebook_size": 8, "channel_dim": 1}
NEAREST: dict[str, Any] = {**SIZES, "code_dim": 3, "commitment_weight": 0.5, "codebook_weight": 2.0}
CODES: dict[str, Any] = {
    **NEAREST,
    "distance": "cosine",
    "gradient": "rotation",
    "decoder_gradient": True,
    "regularizers": (Entropy(0.5),),
}
GIVEN: dict[str, Any] = {"codebook": None, "frozen": True}
BASIS: dict[str, Any] = {"basis": None, "basis_dim": 3}
LATTICE: dict[str, Any] = {"dim": 4, "lattice": "barnes_wall", "channel_dim": 1}
GRID: dict[str, Any] = {"dim": 4, "levels": (3, 4, 5), "channel_dim": 1}
BITS: dict[str, Any] = {
    **SIZES,
    "gradient": "rotation",
    "entropy_weight": 0.5,
    "diversity": 2.0,
    "temperature": 0.25,
    "commitment_weight": 0.5,
    "group_bits": 1,
    "process_group": "world",
}
DROPOUT: dict[str, Any] = {"dropout": 0.5, "dropout_by": "batch"}
STAGES: dict[str, Any] = {
    **SIZES,
    "quantizer": "ema_vq",
    "num_quantizers": 2,
    "stage_dim": 3,
    "shared": True,
    "entry": nn.Tanh(),
    "scales": ((1.0, 0.5, 0.25), 0.5),
    "learn_scales": True,
    **DROPOUT,
    "decay": 0.5,
}


def without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


OPTIONS: dict[str, dict[str, Any]] = {
    "vq": {**CODES, **GIVEN},
    "rotation_vq": {**CODES, **GIVEN},
    "ema_vq": {
        **GIVEN,
        **without(CODES, "codebook_weight", "decoder_gradient"),
        "decay": 0.5,
        "epsilon": 0.25,
        "process_group": "world",
    },
    "simvq": {**CODES, **BASIS, "transform": "diagonal", "learned_basis": True},
    "affine_vq": {**CODES, **BASIS, "transform": "diagonal", "learned_basis": False},
    "vqbridge": {
        **CODES,
        **BASIS,
        "learned_basis": False,
        "patch_size": 3,
        "width": 8,
        "blocks": 1,
        "heads": 2,
        "gate": -0.5,
    },
    "ibq": {
        **without(CODES, "distance", "gradient", "decoder_gradient"),
        "double_weight": 0.5,
        "entropy_weight": 0.125,
        "entropy_temperature": 0.25,
    },
    "optvq": {**CODES, "temperature": 0.5, "iterations": 3},
    "diveq": {**GIVEN, **without(CODES, "gradient", "decoder_gradient"), "noise_variance": 0.5},
    "nsvq": {**GIVEN, **without(CODES, "gradient", "decoder_gradient")},
    "lattice": {**LATTICE, "gradient": "rotation", "commitment_weight": 0.5},
    "multihead": {**without(CODES, "code_dim", "regularizers"), "num_heads": 4, **DROPOUT},
    "qinco": {**NEAREST, "num_quantizers": 2, "hidden_dim": 5, "blocks": 1},
    "gumbel": {
        **without(NEAREST, "commitment_weight", "codebook_weight"),
        "logits": "linear",
        "hard": True,
        "temperature": 0.5,
        "kl_weight": 0.5,
        "learned_scale": True,
    },
    "random_projection": {**SIZES, "code_dim": 3},
    "gaussian_quant": {**SIZES, "code_dim": 3, "kl_weight": 0.5, "tolerance": 0.25, "beta": 0.5},
    "fsq": {**GRID, "bound": "ifsq", "gradient": "rotation", "symmetric": True},
    "dithered_fsq": {
        **GRID,
        "bound": "ifsq",
        "gradient": "rotation",
        "noise_probability": 0.25,
        "noise_by": "vector",
    },
    "normalized_fsq": {**GRID, "bound": "ifsq", "gradient": "rotation", "decay": 0.5, "process_group": "world"},
    "fsp": {**GRID, "cdf": "tanh", "quantize_probability": 0.25},
    "lfq": BITS,
    "bsq": BITS,
    "bernoulli": {**SIZES, "kl_weight": 0.5, "free_nats": 0.25},
    "residual": STAGES,
    "residual_fsq": {
        **GRID,
        "num_quantizers": 3,
        "normalize": True,
        "entry": nn.Sigmoid(),
        "scales": ((1.0, 0.5, 0.25), 0.5, 0.25),
        "learn_scales": True,
        **DROPOUT,
    },
    "parallel": {**SIZES, "quantizer": "ema_vq", "num_quantizers": 2, "decay": 0.5},
    "grouped": {**SIZES, "quantizer": "ema_vq", "num_groups": 2, "shared": True, **DROPOUT, "decay": 0.5},
    "multiscale": {
        **SIZES,
        "quantizer": "ema_vq",
        "scales": (0.5, 1.0),
        "axes": 1,
        "shared": False,
        "interpolation": "nearest",
        "blends": (nn.Conv1d(4, 4, 1),),
        "entry": nn.LayerNorm(4),
        **DROPOUT,
        "flip_probability": 0.0,
        "decay": 0.5,
    },
    "var": {
        **SIZES,
        "quantizer": "ema_vq",
        "scales": (0.5, 1.0),
        "axes": 1,
        "shared": False,
        "num_blends": 1,
        "blend_ratio": 0.25,
        "interpolation": "nearest",
        "commitment_weight": 0.5,
        "codebook_weight": 2.0,
        "gradient": "rotation",
        "entry": nn.LayerNorm(4),
        **DROPOUT,
        "flip_probability": 0.0,
        "decay": 0.5,
    },
    "bypass": {**SIZES, "quantizer": "ema_vq", "probability": 0.5, "decay": 0.5},
    "interpolated": {**SIZES, "quantizer": "ema_vq", "hardness": 0.5, "decay": 0.5},
    "rotated": {**SIZES, "quantizer": "ema_vq", "decay": 0.5},
    "opq": {**SIZES, "quantizer": "ema_vq", "num_groups": 4, "shared": True, **DROPOUT, "decay": 0.5},
    "none": {**SIZES, "code_dim": 3},
}
LISTED = tuple(OPTIONS)
"""The names whose options are listed above: all that the library itself registers."""


def options_by_signature(name: str) -> dict[str, Any]:
    """Options for a method that is not listed: values listed for options of the same name, else the defaults."""
    known = {option: value for options in OPTIONS.values() for option, value in options.items()}
    parameters = signature_of(_BUILDERS[name]).parameters
    chosen = {option: SIZES.get(option, known.get(option, p.default)) for option, p in parameters.items()}
    return {option: value for option, value in chosen.items() if value is not inspect.Parameter.empty}


OPTIONS |= {name: options_by_signature(name) for name in quantizers.available() if name not in LISTED}
every_name = pytest.mark.parametrize("name", list(OPTIONS))

TAKERS: dict[str, list[Any]] = {
    "lattice": [quantizers.SphericalLattice],
    "fsq": [FSQ],
    "dithered_fsq": [quantizers.DitheredFSQ],
    "normalized_fsq": [quantizers.NormalizedFSQ],
    "fsp": [quantizers.FSP],
    "vqbridge": [SimVQ, quantizers.VQBridge],
    "residual": [ResidualQuantizer],
    "grouped": [GroupedQuantizer],
    "residual_fsq": [ResidualQuantizer],
    "multiscale": [MultiScaleQuantizer],
    "var": [quantizers.VARQuantizer],
    "bypass": [quantizers.BypassQuantizer],
    "interpolated": [quantizers.InterpolatedQuantizer],
    "rotated": [quantizers.RotatedQuantizer],
    "opq": [GroupedQuantizer],
}
"""Whose options a builder takes too."""


def option_names(*functions: Any, keyword_only: bool = False) -> list[str]:
    """The options that functions and constructors name."""
    kinds = NAMED[1:] if keyword_only else NAMED
    parameters = (item for function in functions for item in signature_of(function).parameters.items())
    return [name for name, parameter in parameters if parameter.kind in kinds]


def test_every_option_of_every_name_is_tried() -> None:
    assert OPTIONS.keys() == set(quantizers.available())
    for name, options in OPTIONS.items():
        own = {*option_names(_BUILDERS[name]), *option_names(*TAKERS.get(name, []), keyword_only=True)}
        left = {"transform"} if name == "vqbridge" else set()
        left |= {"blends"} if name == "var" else set()
        left |= {"codebook_size"} if options.keys() & {"levels", "lattice"} else set()
        stage = {"codebook_size", "decay"} if "quantizer" in options else set()
        assert options.keys() == own - left | stage, name


def make(name: str, options: Mapping[str, Any]) -> Quantizer:
    """With modules of its own, and seeded codes."""
    torch.manual_seed(3)
    modules = {key: copy.deepcopy(value) for key, value in options.items() if isinstance(value, nn.Module)}
    return quantizers.create(name, **{**options, **modules})


# Other forms of the same value


class Own(Sequence[Any]):
    """A configuration system's sequence."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.components = parts

    def __getitem__(self, place: Any) -> Any:
        return self.components[place]

    def __len__(self) -> int:
        return len(self.components)


class Text(str):
    """A string of another library."""


def member(value: Any, *bases: type) -> Any:
    """A member of an enumeration with that value."""
    return enum.Enum("Member", {"ONLY": value}, type=bases[0] if bases else None).ONLY  # type: ignore[attr-defined]


FORMS: dict[type, list[Callable[[Any], Any]]] = {
    bool: [np.bool_, torch.tensor, np.array, int],
    int: [np.int64, np.int32, np.uint8, torch.tensor, np.array, member, lambda value: member(value, int)],
    float: [
        np.float64, np.float32, np.float16, lambda value: torch.tensor(value, dtype=torch.float64), torch.tensor,
        np.array, Fraction, Decimal, member,
    ],
    str: [Text, np.str_, np.array, member, lambda value: member(value, str)],
}  # fmt: skip


def in_another_form(draw: st.DrawFn, value: Any) -> Any:
    """What another library would give in a value's place; modules and regularizers as they are."""
    if isinstance(value, tuple):
        if value and all(isinstance(part, int) for part in value) and draw(st.booleans()):
            kinds = [np.array, torch.tensor, range(value[0], value[-1] + 1).__class__]
            kind = draw(st.sampled_from(kinds))
            return range(value[0], value[-1] + 1) if kind is range else kind(value)
        return draw(st.sampled_from([tuple, list, Own]))([in_another_form(draw, part) for part in value])
    forms = FORMS.get(type(value), [lambda value: value])
    if isinstance(value, int) and value < 0:
        forms = [form for form in forms if form is not np.uint8]
    if isinstance(value, float) and value.is_integer() and draw(st.booleans()):
        return in_another_form(draw, int(value))
    return draw(st.sampled_from(forms))(value)


@st.composite
def other_forms(draw: st.DrawFn, options: Mapping[str, Any]) -> dict[str, Any]:
    chosen = draw(st.sets(st.sampled_from(sorted(options)), min_size=1))
    return {name: in_another_form(draw, value) if name in chosen else value for name, value in options.items()}


def as_json(quantizer: Quantizer) -> str:
    """Its configuration, in which 1 and 1.0 and True differ."""
    return json.dumps(configuration(quantizer), sort_keys=True, allow_nan=False)


def assert_plain(value: Any) -> None:
    """Numbers and strings of Python's own, through lists and tuples."""
    if isinstance(value, list | tuple):
        for part in value:
            assert_plain(part)
    elif isinstance(value, bool | int | float | str | np.generic | np.ndarray) or value is None:
        assert type(value) in (bool, int, float, str, type(None)), f"{value!r} of type {type(value)}"


@every_name
@given(data=st.data())
def test_another_form_of_the_same_value_builds_the_same(name: str, data: st.DataObject) -> None:
    expected = make(name, OPTIONS[name])
    quantizer = make(name, data.draw(other_forms(OPTIONS[name])))
    assert as_json(quantizer) == as_json(expected)
    assert_same_state(state_of(quantizer), state_of(expected))
    for module in quantizer.modules():
        assert_plain([value for key, value in vars(module).items() if not key.startswith("_")])


@every_name
def test_what_another_form_builds_is_saved_copied_and_pickled(name: str, tmp_path: Path) -> None:
    options = {key: np.array(value) if type(value) in FORMS else value for key, value in OPTIONS[name].items()}
    quantizer = make(name, options)
    quantizers.save(quantizer, tmp_path)
    for again in (quantizers.load(tmp_path), pickle.loads(pickle.dumps(quantizer)), copy.deepcopy(quantizer)):
        assert as_json(again) == as_json(make(name, OPTIONS[name]))
        assert_same_state(state_of(again), state_of(quantizer))


def test_values_of_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    told = omegaconf.OmegaConf.create(
        {"axis": 1, "name": "fsq", "options": {"dim": 4, "levels": [3, 4, 5], "channel_dim": "${axis}"}}
    )
    assert as_json(quantizers.create(told.name, **told.options)) == as_json(FSQ(4, [3, 4, 5], channel_dim=1))
    options = {"dim": 2, "codebook_size": 4, "num_quantizers": 2, "scales": [[1.0, 0.5], 0.25]}
    scaled = quantizers.create("residual", **omegaconf.OmegaConf.create(options))
    assert as_json(rebuild(configuration(scaled))) == as_json(quantizers.create("residual", **options))


@given(
    weight=st.floats(0, 9, width=32),
    form=st.sampled_from([float, np.float32, np.float64, Fraction, Decimal, torch.tensor]),
)
def test_numbers_of_regularizers_are_plain(weight: float, form: Callable[[float], Any]) -> None:
    for kind in (Entropy, Orthogonality, Wasserstein):
        regularizer = kind(form(weight))
        assert (type(regularizer.weight), regularizer.weight) == (float, weight)
        assert as_json(VectorQuantizer(4, 8, regularizers=Own([regularizer]))) == as_json(
            VectorQuantizer(4, 8, regularizers=[kind(weight)])
        )


# What means nothing

OF_PYTHON = (
    "unexpected keyword", "positional argument:", "not supported between", "object has no attribute",
    "not iterable", "unhashable", "unsupported operand", "can't multiply", "must be real number", "ambiguous",
    "must be str",
    "cannot be interpreted", "concatenate", "required argument", "required positional", "multiple values",
)  # fmt: skip

NONSENSE: dict[type, list[Any]] = {
    bool: [None, "True", 2, 0.5, [True], {}, np.array([True]), math.nan],
    int: [
        None, "3", "x", 2.5, 1.0, np.float64(1.0), True, np.True_, math.nan, math.inf, [3], {3}, b"3", 1j,
        object(), np.array([3]), torch.tensor([3]), torch.tensor(2.5), torch.tensor(3, device="meta"), nn.Tanh(),
    ],
    float: [
        None, "0.25", "x", math.nan, np.float32("nan"), True, [0.5], {"a": 1}, 1j, object(), Decimal("nan"), int,
        np.array([0.5]), torch.tensor(0.5, requires_grad=True), nn.Tanh(), 10**400,
    ],
    str: [None, "no such name", "", 3, 0.5, True, b"cosine", ["cosine"], {}, np.array([1, 2]), torch.zeros(2)],
    tuple: [
        None, "85", 8, 2.5, {3, 4}, {"a": 3}, b"\x05", [3, "4", 5], [3, None, 5], [[[3]]], np.array(3.0), [1j],
        (part for part in (3, 4)), object(),
    ],
}  # fmt: skip
OPTIONAL = {"code_dim", "stage_dim", "entry", "blend", "process_group", "group_bits", "basis_dim"}


def accepts(name: str, option: str, value: object) -> bool:
    """Whether the annotation of an option accepts a value; asked only where no list here says it."""
    check = None if name in LISTED else check_for(signature_of(_BUILDERS[name]).parameters[option].annotation)
    if check is None:
        return False
    with contextlib.suppress(TypeError, ValueError):
        check(option, value)
        return True
    return False


def nonsense_for(name: str, option: str) -> list[Any]:
    value = OPTIONS[name][option]
    values = [*NONSENSE.get(type(value), [3, "tanh", [nn.Tanh()], nn.Tanh, object()])]
    if isinstance(value, int) and not isinstance(value, bool) and option != "channel_dim":
        can_be_zero = (name, option) in (("qinco", "blocks"), ("var", "num_blends")) or (
            option == "codebook_size" and name == "none"
        )
        values += [-1, np.int64(-3)] + ([] if can_be_zero else [0])
    if isinstance(value, float) and option not in ("gate", "entropy_weight"):
        values += [-0.5, np.float32(-1), -math.inf]
    default_is_none = option in OPTIONAL or (option == "temperature" and name == "bsq") or option == "scales"
    default_is_none |= (name, option) in (
        ("none", "codebook_size"),
        ("residual", "num_quantizers"),
    )
    values = [bad for bad in values if not accepts(name, option, bad)]
    return [bad for bad in values if not (bad is None and default_is_none)]


@every_name
def test_a_value_that_means_nothing_is_named(name: str) -> None:
    for option in OPTIONS[name]:
        for bad in nonsense_for(name, option):
            with pytest.raises((ValueError, TypeError)) as raised:
                make(name, {**OPTIONS[name], option: bad})
            sentence = str(raised.value)
            assert option in sentence, f"{option}={bad!r}: {sentence}"
            assert not any(words in sentence for words in OF_PYTHON), f"{option}={bad!r}: {sentence}"
            assert re.search("expected|takes|there are", sentence), f"{option}={bad!r}: {sentence}"
            assert len(sentence) < 1000


# Options that do not exist, or are missing


@every_name
def test_an_option_that_does_not_exist_is_answered_with_those_near_it(name: str) -> None:
    for option in OPTIONS[name]:
        for typo in (option[:-1] + "x", option.replace("_", ""), f"{option}s"):
            if typo in OPTIONS[name]:
                continue
            options = {typo if key == option else key: value for key, value in OPTIONS[name].items()}
            with pytest.raises(TypeError) as raised:
                make(name, options)
            sentence = str(raised.value)
            assert re.search(rf"did you mean .*'{option}'|is missing {option}", sentence), sentence
            assert not any(words in sentence for words in OF_PYTHON), sentence


@every_name
def test_what_is_missing_is_named(name: str) -> None:
    for option in ("dim", "codebook_size"):
        if option in OPTIONS[name] and (option == "dim" or name != "none"):
            with pytest.raises(TypeError, match=f"is missing {option}; it got"):
                make(name, without(OPTIONS[name], option))


@every_name
def test_a_constructor_that_is_called_directly_says_the_same(name: str) -> None:
    kind = type(make(name, OPTIONS[name]))

    class Derived(kind):  # type: ignore[misc, valid-type]
        """Without a constructor of its own."""

    first = option_names(kind)[0]
    typo = first + first[-1]
    for each in (kind, Derived):
        with pytest.raises(
            UnknownOptionError, match=rf"no option '{typo}', did you mean '{first}'.* {kind.__name__} takes"
        ):
            each(**{typo: 4})
        with pytest.raises(
            TypeError, match=f"{kind.__name__} is missing .*{first}.*; it got channel_dim, expected {first}"
        ):
            each(channel_dim=4)
        with pytest.raises(TypeError, match=f"{kind.__name__} got 7 positional arguments, expected at most"):
            each(4, 8, 2, 3, 4, 5, 6)
        with pytest.raises(TypeError, match=f"{kind.__name__} got {first} twice"):
            each(4, **{first: 4})


def test_parts_of_parts_name_everyone_that_the_options_reach() -> None:
    with pytest.raises(UnknownOptionError, match=r"'droput', did you mean 'dropout'") as raised:
        quantizers.create("grouped", quantizer="residual", dim=4, codebook_size=8, droput=0.5)
    assert list(raised.value.takes) == ["vq", "residual", "grouped"]
    for name, option in (("vqbridge", "transform"), ("residual", "stages"), ("grouped", "groups"), ("vq", "self")):
        with pytest.raises(UnknownOptionError, match=f"no option '{option}'"):
            quantizers.create(name, dim=4, codebook_size=8, **{option: 3})


def test_what_is_no_name_is_named() -> None:
    create: Any = quantizers.create
    for wrong in (None, 3, 2.5, [], ["vq"], {}, np.array([1, 2]), b"vq"):
        with pytest.raises(TypeError, match=r"quantizer is .*, expected a class, a function, or one of affine_vq"):
            create(wrong, dim=4, codebook_size=8)
        with pytest.raises(TypeError, match=r"quantizer is .*, expected a class, a function, or one of affine_vq"):
            create("residual", quantizer=wrong, dim=4, codebook_size=8)
    with pytest.raises(TypeError, match=r"create got 4 positional arguments, expected at most 3, quantizer, dim"):
        create("vq", 4, 8, 1)
    with pytest.raises(TypeError, match=r"create is missing quantizer"):
        create(dim=4)
    with pytest.raises(TypeError, match=r"Linear made Linear, expected a Quantizer"):
        create(nn.Linear, in_features=4, out_features=4)
    with pytest.raises(TypeError, match=r"register got 'own' and 3, expected a name and what to call"):
        quantizers.register("own", 3)  # type: ignore[arg-type]
    for name in (np.str_("vq"), member("vq"), member("vq", str), Text("vq")):
        assert isinstance(create(name, dim=4, codebook_size=8), VectorQuantizer)


def test_errors_of_a_constructor_itself_pass_as_they_are() -> None:
    class Broken(VectorQuantizer):
        def __init__(self, dim: int) -> None:
            super().__init__(dim, 8)
            len(dim)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"object of type 'int' has no len\(\)"):
        quantizers.create(Broken, dim=4)
    with pytest.raises(UnknownOptionError, match=r"no option 'dimm', did you mean 'dim'\? Broken takes dim$"):
        quantizers.create(Broken, dimm=4)


# Calls


def not_tensors(tensor: Tensor) -> list[Any]:
    return [tensor.numpy(), tensor.tolist(), tuple(tensor.tolist()), 3, 2.5, True, None, "x", {"x": tensor}]


@every_case
def test_what_is_no_dense_tensor_is_named_in_every_call(case: Case) -> None:
    quantizer = case.build()
    x, before = batch(3), state_of(quantizer)
    on_x = (quantizer, quantizer.encode, quantizer.initialize_from)
    calls: dict[str, tuple[Tensor, list[Callable[[Any], Any]]]] = {
        "x": (x, list(on_x)),
        "mask": (torch.ones(3, dtype=torch.bool), [partial(method, x) for method in on_x]),
        "indices": (torch.zeros(index_shape(quantizer, 3), dtype=torch.int64), [quantizer.decode]),
    }
    if hasattr(quantizer, "set_codebook"):
        calls["codebook"] = (quantizer.codebook.detach(), [quantizer.set_codebook])
    for name, (example, methods) in calls.items():
        for wrong in not_tensors(example):
            if name == "mask" and wrong is None:
                continue
            can_be_one = isinstance(wrong, np.ndarray | list | tuple | int | float)
            hint = rf"; torch.as_tensor\({name}\) makes one" if can_be_one else ""
            for method in methods:
                with pytest.raises(
                    TypeError, match=f"{name} is of type {type(wrong).__name__}, expected a tensor{hint}$"
                ):
                    method(wrong)
        for method in methods:
            with pytest.raises(TypeError, match=f"{name} has layout torch.sparse_coo, expected a dense tensor"):
                method(example.to_sparse())
    assert_same_state(state_of(quantizer), before)


@every_case
def test_a_dtype_that_does_not_fit_is_named_in_every_call(case: Case) -> None:
    quantizer, x = case.build(), batch(3)
    on_x = (quantizer, quantizer.encode, quantizer.initialize_from)
    # torch 2.4 makes no tensor of eight bits under the tests' deterministic algorithms.
    eight_bits = (torch.float8_e4m3fn,) if TORCH >= (2, 5) else ()
    for dtype in (torch.int64, torch.bool, torch.complex64, *eight_bits):
        for method in on_x:
            with pytest.raises(TypeError, match=f"x has dtype {dtype}, expected a floating dtype"):
                method(x.to(dtype))
    for dtype in (torch.float32, torch.int64, torch.uint8, torch.complex64):
        for method in on_x:
            with pytest.raises(TypeError, match=f"mask has dtype {dtype}, expected torch.bool"):
                method(x, torch.ones(3).to(dtype))
    for dtype in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"indices have dtype {dtype}, expected an integer dtype"):
            quantizer.decode(torch.zeros(index_shape(quantizer, 3), dtype=dtype))
    if hasattr(quantizer, "set_codebook"):
        for dtype in (torch.int64, torch.bool, torch.complex64):
            with pytest.raises(TypeError, match=f"codebook has dtype {dtype}, expected a floating dtype"):
                quantizer.set_codebook(quantizer.codebook.detach().to(dtype))


@cases_where(lambda case: case.has_codes)
def test_another_device_is_named_and_nothing_moves(case: Case) -> None:
    quantizer, x = case.build(), batch(3)
    on_x = (quantizer, quantizer.encode, quantizer.initialize_from)
    for method in on_x:
        with pytest.raises(ValueError, match="mask is on meta, expected x's device, cpu"):
            method(x, torch.ones(3, dtype=torch.bool, device="meta"))
    own = {**dict(quantizer.named_parameters(recurse=False)), **dict(quantizer.named_buffers(recurse=False))}
    if own.keys() - {"index_format"}:  # which no forward reads
        for method in on_x:
            with pytest.raises(ValueError, match="x came on meta, expected cpu, where the quantizer is"):
                method(x.to("meta"))
        with pytest.raises(ValueError, match="indices came on meta, expected cpu, where the quantizer is"):
            quantizer.decode(torch.zeros(index_shape(quantizer, 3), dtype=torch.int64, device="meta"))
    if hasattr(quantizer, "set_codebook"):
        with pytest.raises(ValueError, match="codebook is on the meta device, expected a tensor with values"):
            quantizer.set_codebook(quantizer.codebook.detach().to("meta"))


@pytest.mark.parametrize("wrong", ["2", 2.5, True, [[2]], {}], ids=repr)
def test_numbers_of_calls_are_checked_too(wrong: Any) -> None:
    residual = quantizers.create("residual", dim=4, codebook_size=8)
    pyramid = quantizers.create("multiscale", dim=4, codebook_size=8, axes=1)
    for method in (residual, residual.encode):
        with pytest.raises(ValueError, match=r"num_codebooks is .*, expected an integer"):
            method(batch(3), num_codebooks=wrong)
    with pytest.raises(ValueError, match=r"beam_width is .*, expected an integer of at least 1"):
        residual.encode(batch(3), beam_width=wrong)
    for size in (wrong, [wrong], [[wrong]]):
        if size == [[2]]:
            continue  # which lists the size of one scale
        with pytest.raises(ValueError, match=r"size.* is .*, expected (an integer|a sequence)"):
            pyramid.decode(pyramid.encode(batch(8)), size=size)
    with pytest.raises(ValueError, match=r"temperature is .*, expected a number above 0"):
        GumbelQuantizer(4, 8).temperature = -2.5 if wrong == 2.5 else wrong


def test_numbers_of_calls_may_have_other_forms() -> None:
    residual = quantizers.create("residual", dim=4, codebook_size=8)
    pyramid = quantizers.create("multiscale", dim=4, codebook_size=8, axes=1)
    x = batch(8)
    for form in (np.int64, torch.tensor, np.array):
        assert torch.equal(residual.encode(x, num_codebooks=form(2)), residual.encode(x, num_codebooks=2))
        assert torch.equal(residual.encode(x, beam_width=form(2)), residual.encode(x, beam_width=2))
        tokens = pyramid.encode(x)
        assert torch.equal(pyramid.decode(tokens, size=[form(8)]), pyramid.decode(tokens, size=[8]))
    quantizer = GumbelQuantizer(4, 8)
    for temperature in (np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)):
        quantizer.temperature = temperature  # type: ignore[assignment]
        assert quantizer.temperature == 0.5


# What has been assigned


@pytest.mark.parametrize("form", [np.float64, np.float32, np.array, torch.tensor, Fraction, Decimal, member])
def test_numbers_that_were_assigned_are_told_as_plain_ones(form: Callable[[float], Any], tmp_path: Path) -> None:
    quantizer = ResidualQuantizer(4, [EMAVectorQuantizer(4, 8), quantizers.LFQ(4, 8), quantizers.BSQ(4, 8)])
    expected = copy.deepcopy(quantizer)
    for target, value, axis in ((expected, 0.375, 1), (quantizer, form(0.375), np.int64(1))):
        target.dropout = value
        target.channel_dim = axis  # type: ignore[assignment]
        for part, name in zip(target.components, ("decay", "temperature", "entropy_weight"), strict=True):
            part.commitment_weight = value  # type: ignore[assignment]
            setattr(part, name, value)
    assert as_json(quantizer) == as_json(expected)
    quantizers.save(quantizer, tmp_path)
    assert as_json(quantizers.load(tmp_path)) == as_json(expected)


def test_the_temperature_of_gumbel_is_state_and_no_number_that_was_assigned() -> None:
    quantizer = GumbelQuantizer(4, 8, temperature=0.1)  # which float32 rounds
    assert "assigned" not in configuration(quantizer)


@pytest.mark.parametrize("wrong", ["0.5", None, [0.5]], ids=repr)
def test_what_was_assigned_and_is_no_number_is_not_lost(wrong: Any, tmp_path: Path) -> None:
    quantizer = VectorQuantizer(4, 8)
    quantizer.commitment_weight = wrong
    with pytest.raises(ValueError, match=r"commitment_weight is .*, expected a number: it was assigned after"):
        quantizers.save(quantizer, tmp_path)
    assert not list(tmp_path.iterdir())


# Quantizers of the user's


class Fixed(VectorQuantizer):
    """A constructor that sets what it has no argument for, and passes on what it gets."""

    def __init__(self, dim: int, weight: Any = 0.5) -> None:
        super().__init__(dim, 8, commitment_weight=weight)


class Staged(ResidualQuantizer):
    """Without a constructor of its own, between two classes."""


class Bare(Staged):
    """Likewise."""


@pytest.mark.parametrize("form", [float, np.float32, np.array, torch.tensor, Fraction])
def test_a_users_constructor_may_pass_on_any_form(form: Callable[[float], Any], tmp_path: Path) -> None:
    quantizer = Fixed(np.int64(4), form(0.25))  # type: ignore[arg-type]
    assert (type(quantizer.dim), type(quantizer.commitment_weight)) == (int, float)
    quantizer.codebook_weight = 0.75
    quantizers.save(quantizer, tmp_path)
    loaded = quantizers.load(tmp_path)
    assert as_json(loaded) == as_json(quantizer)
    assert (loaded.commitment_weight, loaded.codebook_weight) == (0.25, 0.75)


@pytest.mark.parametrize("kind", [list, tuple, Own, nn.ModuleList, lambda parts: nn.Sequential(*parts)])
@pytest.mark.parametrize("of", [ResidualQuantizer, Bare])
def test_parts_may_come_in_any_sequence(kind: Callable[[Any], Any], of: Any, tmp_path: Path) -> None:
    parts = [VectorQuantizer(4, 8), Fixed(4)]
    quantizer = of(4, kind(parts), scales=np.array([0.5, 0.25]))
    assert as_json(quantizer) == as_json(of(4, parts, scales=[0.5, 0.25]))
    quantizers.save(quantizer, tmp_path)
    loaded = quantizers.load(tmp_path)
    assert type(loaded) is of
    assert as_json(loaded) == as_json(quantizer)


@needs_python(3, 11, 4, "signatures of classes that inherit their constructor past a __new__")
def test_an_inherited_constructor_has_its_signature() -> None:
    assert inspect.signature(Bare) == inspect.signature(ResidualQuantizer)
