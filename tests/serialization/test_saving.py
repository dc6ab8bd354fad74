"""A trained quantizer comes back from its folder bit for bit, and trains on; a broken folder is named."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import quantizers
from quantizers import (
    FSQ,
    EMAVectorQuantizer,
    GroupedQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
)
from quantizers.serialization.configuration import configuration
from tests.cases import (
    Case,
    assert_same_state,
    batch,
    every_case,
    indices_for,
    missing_of,
    seeded,
    state_of,
)
from tests.default_dtype import default_dtype
from tests.robustness.test_checkpoints import assert_continue_alike, trained

FILES = {"config.json", "model.safetensors"}


@every_case
def test_a_trained_quantizer_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    """State, configuration, evaluation, codes, and the next step of training."""
    quantizer = trained(case)
    quantizers.save(quantizer, tmp_path / "new" / "folder")
    assert {file.name for file in (tmp_path / "new" / "folder").iterdir()} == FILES
    loaded = quantizers.load(tmp_path / "new" / "folder", **missing_of(case))
    assert type(loaded) is type(quantizer)
    assert not loaded.training
    assert_same_state(dict(quantizer.state_dict()), dict(loaded.state_dict()))
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in quantizer.parameters()]
    assert configuration(loaded) == configuration(quantizer)
    assert torch.equal(loaded.encode(batch(9)), quantizer.encode(batch(9)))
    if case.has_codes:
        indices = indices_for(quantizer, torch.arange(-1, quantizer.codebook_size))
        assert torch.equal(loaded.decode(indices), quantizer.decode(indices))
    assert_continue_alike(quantizer, loaded)


def test_a_pyramid_comes_back(tmp_path: Path) -> None:
    quantizer = Case("multiscale", {"quantizer": "ema_vq", "blends": [nn.Conv2d(4, 4, 3, padding=1)]}).build()
    quantizer(batch(2, 8, 8))
    quantizers.save(quantizer, tmp_path)
    loaded = quantizers.load(tmp_path)
    for training in (False, True):
        outputs = [seeded(each.train(training), batch(2, 8, 8)) for each in (quantizer, loaded)]
        assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert_same_state(state_of(quantizer), state_of(loaded))


def dtypes(quantizer: Quantizer) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in state_of(quantizer).items()}


@pytest.mark.parametrize("name", ["vq", "ema_vq", "fsq", "gumbel", "residual_fsq", "random_projection"])
def test_float64_stays(name: str, tmp_path: Path) -> None:
    """Also of what is not saved, as FSQ's levels."""
    quantizer = Case(name).build().double()
    quantizer(batch(20, dtype=torch.float64))
    quantizers.save(quantizer, tmp_path)
    loaded = quantizers.load(tmp_path)
    assert {n: t.dtype for n, t in state_of(loaded).items()} == {
        n: t.dtype for n, t in state_of(quantizer).items()
    }
    assert_same_state(dict(quantizer.state_dict()), dict(loaded.state_dict()))
    indices = indices_for(quantizer, torch.arange(5))
    assert torch.equal(loaded.decode(indices), quantizer.decode(indices))


def test_a_part_in_float64_stays_so_and_the_default_dtype_does_not_matter(tmp_path: Path) -> None:
    quantizer = ResidualQuantizer(4, [VectorQuantizer(4, 8), EMAVectorQuantizer(4, 8).double()])
    quantizers.save(quantizer, tmp_path)
    with default_dtype(torch.float64):
        loaded = quantizers.load(tmp_path)
    assert {n: t.dtype for n, t in state_of(loaded).items()} == {
        n: t.dtype for n, t in state_of(quantizer).items()
    }


def test_a_shared_codebook_is_written_once_and_stays_shared(tmp_path: Path) -> None:
    shared = EMAVectorQuantizer(2, 8)
    quantizer = ResidualQuantizer(4, [GroupedQuantizer(4, [shared, VectorQuantizer(2, 8)]) for _ in range(2)])
    quantizer(batch(20))
    quantizers.save(quantizer, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert len(file.keys()) == len({id(tensor) for tensor in quantizer.state_dict(keep_vars=True).values()})
        assert file.metadata() == {"format": "pt"}
    loaded = quantizers.load(tmp_path)
    first, second = (part.components[0] for part in loaded.components)
    assert first is second
    assert_continue_alike(quantizer, loaded)


class Tied(VectorQuantizer):
    """A table that is the first one's rows in another order of memory, a parameter under two names, and a buffer
    that is a view."""

    def __init__(self) -> None:
        super().__init__(4, 8)
        self.alias = nn.Linear(4, 8, bias=False)
        self.alias.weight = self.embedding
        self.strided = nn.Parameter(torch.randn(3, 5).T)
        self.register_buffer("part", self.strided.detach()[1:, 1])


def test_tied_and_overlapping_tensors_are_saved(tmp_path: Path) -> None:
    quantizer = Tied()
    quantizers.save(quantizer, tmp_path)
    loaded = quantizers.load(tmp_path)
    assert loaded.alias.weight is loaded.embedding
    assert_same_state(dict(quantizer.state_dict()), dict(loaded.state_dict()))


def test_loading_draws_nothing_from_the_generator(tmp_path: Path) -> None:
    quantizers.save(Case("simvq").build(), tmp_path)
    before = torch.get_rng_state()
    quantizers.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_options_may_be_others(tmp_path: Path) -> None:
    quantizer = VectorQuantizer(4, 8)
    quantizers.save(quantizer, str(tmp_path))
    loaded = quantizers.load(str(tmp_path), distance="cosine", commitment_weight=0.5)
    assert (loaded.distance, loaded.commitment_weight) == ("cosine", 0.5)
    assert torch.equal(loaded.embedding, quantizer.embedding)


class UserMap(nn.Module):
    """A user's map, which JSON cannot represent."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, codes: Tensor) -> Tensor:
        return codes + self.shift


def test_a_users_own_map_is_asked_for_and_gets_its_weights(tmp_path: Path) -> None:
    quantizer = SimVQ(4, 8, transform=UserMap())
    quantizers.save(quantizer, tmp_path)
    with pytest.raises(ValueError, match=r"transform was an instance of UserMap. Pass them by name: transform="):
        quantizers.load(tmp_path)
    loaded = quantizers.load(tmp_path, transform=UserMap())
    assert torch.equal(loaded.codebook, quantizer.codebook)


def test_other_files_stay_and_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    quantizers.save(VectorQuantizer(4, 8), tmp_path)
    quantizers.save(FSQ(4, (5, 5)), tmp_path)
    assert isinstance(quantizers.load(tmp_path), FSQ)
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "README.md"}
    assert (tmp_path / "README.md").read_text() == "mine"


# Killed in between


class Killed(BaseException):
    """Nothing after it runs."""


def kill_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die in front of the n-th operation on a file, with half of what it writes written."""
    count = 0

    def watched(operation: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:
                if half is not None:
                    half(*args)
                raise Killed
            return operation(*args, **kwargs)

        return act

    monkeypatch.setattr(Path, "unlink", watched(Path.unlink))
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    monkeypatch.setattr(
        Path, "write_text", watched(Path.write_text, lambda file, text: file.write_bytes(text[:20].encode()))
    )
    save_file = "safetensors.torch.save_file"
    monkeypatch.setattr(
        save_file,
        watched(
            __import__("safetensors.torch").torch.save_file, lambda tensors, file: file.write_bytes(b"\0" * 9)
        ),
    )


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_killed_save_leaves_the_old_one_or_the_new_one_or_none(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same shapes, so that parts of two would load."""
    old, new = VectorQuantizer(4, 8), VectorQuantizer(4, 8, distance="cosine")
    quantizers.save(old, tmp_path)
    with monkeypatch.context() as patched:
        kill_at(moment, patched)
        if moment <= 5:  # that many operations there are
            with pytest.raises(Killed):
                quantizers.save(new, tmp_path)
        else:
            quantizers.save(new, tmp_path)
    if moment in (4, 5):
        with pytest.raises(FileNotFoundError, match=r"no config.json in .*or saving was interrupted"):
            quantizers.load(tmp_path)
    else:
        loaded, expected = quantizers.load(tmp_path), old if moment < 4 else new
        assert loaded.distance == expected.distance
        assert torch.equal(loaded.embedding, expected.embedding)
    quantizers.save(new, tmp_path)  # and nothing of it is in the way of the next
    assert quantizers.load(tmp_path).distance == "cosine"
    assert {file.name for file in tmp_path.iterdir()} == FILES


# What is wrong is said


def change(folder: Path, **entries: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "no config.json in"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "no model.safetensors in"),
        (lambda f: (f / "config.json").write_text("{'a"), ValueError, r"config.json is not JSON: "),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), ValueError, r"config.json is not JSON: "),
        (
            lambda f: (f / "config.json").write_text("[1]"),
            ValueError,
            r"config.json contains a JSON value of type list, expected an",
        ),
        (lambda f: (f / "config.json").write_text("{}"), ValueError, "expected a quantizer's configuration"),
        (lambda f: change(f, format=9, version="8.1"), ValueError, "format 9, expected 1: .*8.1"),
        (lambda f: change(f, quantizer="VQ3"), ValueError, "no quantizer class is named 'VQ3' here"),
        (lambda f: change(f, dtype="int8"), ValueError, "dtype 'int8', expected one of float32, float64"),
        (
            lambda f: change(f, arguments={"dim": 4, "codebook_size": 6}),
            ValueError,
            r"does not fit .*\n.*size mismatch for embedding",
        ),
        (
            lambda f: change(f, quantizer="EMAVectorQuantizer", arguments={"dim": 4, "codebook_size": 8}),
            ValueError,
            r"does not fit .*\n.*Missing .*\"cluster_size\"",
        ),
        (lambda f: change(f, quantizer="EMAVectorQuantizer"), ValueError, "of EMAVector.*'codebook_weight'"),
        (lambda f: change(f, quantizer="FSQ", arguments={"dim": 1, "levels": [5]}), ValueError, "does not fit"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-7]),
            ValueError,
            r"model.safetensors is not a complete safetensors file",
        ),
    ],
)
def test_a_folder_that_is_damaged_is_named(
    damage: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    quantizers.save(VectorQuantizer(4, 8), tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        quantizers.load(tmp_path)


def test_what_is_not_ours_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file, expected a folder"):
        quantizers.save(VectorQuantizer(4, 8), tmp_path / "file")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        FileExistsError, match=r"config.json is not the configuration of a quantizer, and is not overwritten"
    ):
        quantizers.save(VectorQuantizer(4, 8), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"file", "config.json"}


class Extra(VectorQuantizer):
    """State that is no tensor."""

    def get_extra_state(self) -> object:
        return {"steps": 3}

    def set_extra_state(self, state: object) -> None:
        pass


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state '_extra_state' is dict, expected a tensor"):
        quantizers.save(Extra(4, 8), tmp_path)
    with pytest.raises(TypeError, match="quantizer is Linear, expected a Quantizer"):
        quantizers.save(nn.Linear(2, 2), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers.save(VectorQuantizer(4, 8), tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for act in (lambda: quantizers.load(tmp_path), lambda: quantizers.save(VectorQuantizer(4, 8), tmp_path)):
        with pytest.raises(ImportError, match=r"need safetensors: pip install 'quantizers-torch\[hub\]'"):
            act()
