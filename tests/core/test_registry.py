"""Names, near misses, and the metrics of a codebook's use."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers import metrics
from quantizers.core.arguments.forwarding import Computed
from quantizers.core.arguments.hints import LEARNED, SYNONYMS
from quantizers.core.registry import _BUILDERS, ALIASES


def test_names() -> None:
    assert set(quantizers.available()) >= {"vq", "ema_vq", "simvq", "rotation_vq", "fsq", "gumbel", "none"}
    assert list(quantizers.available()) == sorted(quantizers.available())


@pytest.mark.parametrize("name", quantizers.available())
def test_one_line_of_configuration_builds_them_all(name: str) -> None:
    quantizer = quantizers.create(name, dim=6, codebook_size=64, channel_dim=1)
    assert quantizer(torch.randn(2, 6, 4, 4)).quantized.shape == (2, 6, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("sim_vq", "simvq"),
        ("VQ", "vq"),
        ("ema", "ema_vq"),
        ("rotation", "rotation_vq"),
        ("rvq", "residual"),
        ("EMAVectorQuantizer", "ema_vq"),
    ],
)
def test_unknown_names_answer_with_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no quantizer is named {wrong!r}; did you mean .*{near!r}") as error:
        quantizers.create(wrong, dim=4, codebook_size=8)
    assert all(name in str(error.value) for name in quantizers.available())


def test_classes_and_partials_are_taken_too() -> None:
    assert isinstance(quantizers.create(quantizers.SimVQ, dim=4, codebook_size=8), quantizers.SimVQ)
    cosine = partial(quantizers.VectorQuantizer, distance="cosine")
    assert quantizers.create(cosine, dim=4, codebook_size=8).distance == "cosine"


def test_parameters_are_those_left_open() -> None:
    assert {"gradient", "code_dim"} <= quantizers.core.registry.parameters("vq")
    assert "gradient" not in quantizers.core.registry.parameters("rotation_vq")
    assert "transform" not in quantizers.core.registry.parameters("affine_vq")
    assert quantizers.core.registry.parameters("no such name") == frozenset()


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.core.registry._BUILDERS", dict(_BUILDERS))
    quantizers.register("cosine_vq", partial(quantizers.VectorQuantizer, distance="cosine"))
    assert "cosine_vq" in quantizers.available()
    assert quantizers.create("cosine_vq", dim=4, codebook_size=8).distance == "cosine"
    with pytest.raises(ValueError, match="'vq' is registered already"):
        quantizers.register("vq", quantizers.VectorQuantizer)


def test_names_with_a_scheme_are_answered_by_its_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.core.registry._SCHEMES", {})
    quantizers.core.registry.register_scheme(
        "sized", lambda rest: ("residual", {"dim": 4, "codebook_size": int(rest), "num_quantizers": 3})
    )
    assert quantizers.create("sized:16").stages[0].codebook_size == 16
    assert quantizers.create("sized:16", codebook_size=8, num_quantizers=2).stages[1].codebook_size == 8
    options = quantizers.options("sized:16")
    assert (options["dim"], options["codebook_size"], options["shared"]) == (4, 16, False)
    assert "num_quantizers" not in quantizers.core.registry.parameters("sized:16")
    with pytest.raises(ValueError, match="no quantizer is named 'seized:16'"):
        quantizers.create("seized:16")
    monkeypatch.setattr("quantizers.core.registry._BUILDERS", dict(_BUILDERS))
    quantizers.register("sized:a name", quantizers.VectorQuantizer)
    assert isinstance(quantizers.create("sized:a name", 4, 8), quantizers.VectorQuantizer)


def test_a_class_that_is_defined_again_replaces_its_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.core.registry._BUILDERS", dict(_BUILDERS))

    def define(name: str) -> type[quantizers.VectorQuantizer]:
        @quantizers.register(f"{name}_rotation", gradient="rotation")
        @quantizers.register(name)
        class Again(quantizers.VectorQuantizer):
            pass

        return Again

    first, second = define("again"), define("again")
    assert first is not second
    assert type(quantizers.create("again", 4, 8)) is second
    assert type(quantizers.create("again_rotation", 4, 8)) is second
    quantizers.register("again_residual", quantizers.ResidualQuantizer.from_options)
    for name in ("vq", "residual", "rotation_vq"):
        with pytest.raises(ValueError, match=f"'{name}' is registered already"):
            quantizers.register(name, second)
        with pytest.raises(ValueError, match=f"'{name}' is registered already"):
            quantizers.register(name, partial(quantizers.VectorQuantizer, distance="cosine"))
    Residual = type("Residual", (quantizers.ResidualQuantizer,), {})
    with pytest.raises(ValueError, match="'residual' is registered already"):
        quantizers.register("residual", Residual.from_options)


def test_dim_and_codebook_size_by_position() -> None:
    for name in quantizers.available():
        assert repr(quantizers.create(name, 6, 64)) == repr(quantizers.create(name, dim=6, codebook_size=64))
    with pytest.raises(TypeError, match="create got 4 positional arguments, expected at most 3"):
        quantizers.create("vq", 6, 64, 1)  # type: ignore[call-arg, misc]
    with pytest.raises(TypeError, match="create got dim twice, by its position and by its name"):
        quantizers.create("vq", 6, dim=6)  # type: ignore[misc]


@pytest.mark.parametrize("name", quantizers.available())
def test_options_are_those_that_create_takes(name: str) -> None:
    options = quantizers.options(name)
    assert repr(options["dim"]) == "required"
    text = repr(options)
    assert text.startswith(f"options of '{name}':")
    assert all(f"  {option} " in text for option in options)
    forwards = ("residual", "grouped", "multiscale", "var", "parallel", "bypass", "interpolated", "rotated", "opq")
    assert ("Other options go to" in text) == (name in forwards)
    given = {option: value for option, value in options.items() if "required" not in repr(value)}
    given = {option: value for option, value in given.items() if not isinstance(value, Computed)}
    explicit = quantizers.create(name, **{**given, "dim": 6, "codebook_size": 64})
    assert repr(explicit) == repr(quantizers.create(name, dim=6, codebook_size=64))
    with pytest.raises(quantizers.core.arguments.options.UnknownOptionError) as raised:
        quantizers.create(name, 6, 64, no_such_option=1)
    assert list(raised.value.takes[name]) == list(options)


def test_options_of_presets_and_callables() -> None:
    assert quantizers.options("rotation_vq")["gradient"] == "rotation"
    assert quantizers.options("residual_fsq")["dropout"] == 0.0
    assert "transform" not in quantizers.options("vqbridge")
    assert {"patch_size", "decoder_gradient"} <= quantizers.options("vqbridge").keys()
    own = {"dim", "levels", "channel_dim", "bound", "symmetric", "gradient"}
    assert quantizers.options(quantizers.FSQ).keys() == own
    with pytest.raises(ValueError, match="no quantizer is named 'rvq'; did you mean 'residual'"):
        quantizers.options("rvq")


@pytest.mark.parametrize(
    ("name", "word", "answer"),
    [
        ("vq", "num_embeddings", ", did you mean 'codebook_size'?"),
        ("rotation_vq", "n_e", ", did you mean 'codebook_size'?"),
        ("fsq", "n_embed", ", did you mean 'codebook_size'?"),
        ("vq", "embedding_dim", ", did you mean 'dim' or 'code_dim'?"),
        ("fsq", "embedding_dim", ", did you mean 'dim'?"),
        ("vq", "codebook_dim", ", did you mean 'code_dim'?"),
        ("ema_vq", "beta", ", did you mean 'commitment_weight'?"),
        ("residual", "commitment_cost", ", did you mean 'commitment_weight'?"),
        ("fsq", "beta", "."),
        ("vq", "decay", ": 'ema_vq' takes decay: its codes are moving averages."),
        ("ema_vq", "ema_decay", ", did you mean 'decay'?"),
        ("gumbel", "tau", ", did you mean 'temperature'?"),
        ("vq", "tau", "."),
        ("residual", "n_codebooks", ", did you mean 'num_quantizers'?"),
        ("qinco", "n_q", ", did you mean 'num_quantizers'?"),
        ("grouped", "n_codebooks", ", did you mean 'num_groups'?"),
        ("vq", "rotation_trick", ': pass gradient="rotation".'),
        ("nsvq", "rotation_trick", "."),
        ("simvq", "use_cosine_sim", ': pass distance="cosine".'),
        ("lfq", "use_cosine_sim", "."),
        ("simvq", "kmeans_init", ": call quantizers.warm_start(model, batches) before training."),
        ("fsq", "kmeans_init", "."),
        ("ema_vq", "threshold_ema_dead_code", ": call quantizers.DeadCodeReplacement(model, optimizer).step()"),
        ("simvq", "threshold_ema_dead_code", "."),
        ("bsq", "accept_image_fmap", ": pass channel_dim=1 for x of shape [B, C, H, W]."),
    ],
)
def test_words_of_other_libraries_are_answered_where_their_target_exists(
    name: str, word: str, answer: str
) -> None:
    with pytest.raises(TypeError) as raised:
        quantizers.create(name, 4, 8, **{word: 1})
    assert str(raised.value).startswith(
        f"there is no option '{word}'{answer} "[: -1 if answer[-1] == ")" else None]
    )
    assert f"{name} takes" in str(raised.value)


def test_hints_name_options_that_exist() -> None:
    existing = {option for name in quantizers.available() for option in quantizers.options(name)}
    assert {option for meant in SYNONYMS.values() for option in meant} <= existing
    assert set(ALIASES.values()) <= set(quantizers.available())
    learned = {
        "vq",
        "ema_vq",
        "simvq",
        "gumbel",
        "multihead",
        "qinco",
        "ibq",
        "optvq",
        "diveq",
        "nsvq",
        "vqbridge",
    }
    for name in quantizers.available():
        if name not in ("residual", "grouped", "multiscale", "var", "parallel"):
            options = quantizers.options(name).keys()
            assert (not LEARNED.isdisjoint(options)) == (name in learned | {"rotation_vq", "affine_vq"})
            takes_losses = "regularizers" in options and "learned_basis" not in options
            built = quantizers.create(name, dim=4, codebook_size=8)
            assert ("logits" in options or takes_losses) == built.has_table


# metrics


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_metrics_are_their_definitions(counts: list[int]) -> None:
    tensor = torch.tensor(counts)
    total = sum(counts)
    bits = sum(-c / total * math.log2(c / total) for c in counts if c) if total else 0.0
    assert metrics.utilization(tensor) == pytest.approx(sum(c > 0 for c in counts) / len(counts))
    assert metrics.entropy(tensor) == pytest.approx(bits, abs=1e-12)
    assert metrics.perplexity(tensor) == pytest.approx(2**bits)


@given(indices=st.lists(st.integers(-1, 9), max_size=60), split=st.integers(0, 60))
def test_counts_add_and_leave_out_what_has_no_code(indices: list[int], split: int) -> None:
    tensor = torch.tensor(indices, dtype=torch.int64)
    counts = metrics.code_counts(tensor, 10)
    assert counts.tolist() == [indices.count(code) for code in range(10)]
    assert torch.equal(counts, metrics.code_counts(tensor[:split], 10) + metrics.code_counts(tensor[split:], 10))


def test_uniform_use_is_the_most() -> None:
    counts = torch.full((256,), 3)
    assert metrics.entropy(counts) == pytest.approx(8)
    assert metrics.perplexity(counts) == pytest.approx(256)


def test_counting_a_code_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError, match="index 10 is outside a codebook of 10 codes"):
        metrics.code_counts(torch.tensor([3, 10]), 10)
