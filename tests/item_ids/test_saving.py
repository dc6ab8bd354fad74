"""A table comes back from its folder, and a folder that holds something else, or parts, is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers.item_ids import SemanticIDs, saving
from quantizers.item_ids.collisions import POLICIES
from tests.item_ids.cases import build, embeddings, names, seeds

FILES = {"config.json", "model.safetensors", "ids.npy", "items.json", "semantic_ids.json"}


def table(count: int = 6, *, seed: int = 0, collisions: str = "next_code") -> SemanticIDs:
    return SemanticIDs.from_quantizer(
        build("residual", seed), embeddings("grid", seed, count), collisions=collisions
    )


def assert_same(a: SemanticIDs, b: SemanticIDs) -> None:
    assert torch.equal(a.codes, b.codes)
    for name in ("items", "skipped", "collisions", "collided", "sizes", "collision_rate_before"):
        assert getattr(a, name) == getattr(b, name), name


@given(
    name=names,
    seed=seeds,
    items=st.lists(st.integers() | st.text() | st.just("\ud800"), unique=True, max_size=12).filter(
        lambda items: not {"a new item", "another", "a third"} & {*items}
    ),
    broken=st.integers(0, 11),
    collisions=st.sampled_from(sorted(POLICIES)),
)
def test_a_table_comes_back_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seed: int,
    items: list[str | int],
    broken: int,
    collisions: str,
) -> None:
    """With its quantizer, and what was skipped; new items get the IDs that they would have got."""
    folder = tmp_path_factory.mktemp("table") / "new" / "folder"
    x = embeddings("grid", seed, len(items))
    x[broken : broken + 1] = torch.nan
    ids = SemanticIDs(build(name, seed), collisions=collisions)
    if items:
        ids.extend(x, items)
    ids.save(folder)
    assert {file.name for file in folder.iterdir()} == FILES
    loaded = SemanticIDs.load(folder)
    assert_same(loaded, ids)
    assert list(loaded) == list(ids)
    for each in (ids, loaded):
        each.extend(embeddings("normal", seed, 3), ["a new item", "another", "a third"])
    assert_same(loaded, ids)


def test_the_files_can_be_read_without_this_library(tmp_path: Path) -> None:
    ids = table()
    ids.save(tmp_path)
    assert np.array_equal(np.load(tmp_path / "ids.npy"), ids.codes.numpy())
    assert json.loads((tmp_path / "items.json").read_text()) == ids.items
    quantizer = quantizers.load(tmp_path)
    x = embeddings("grid", 0, 6)
    assert torch.equal(quantizer.encode(x), ids.quantizer.encode(x))


def test_a_table_replaces_another_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    table(3).save(tmp_path)
    table(8, seed=1, collisions="extra_level").save(tmp_path)
    assert_same(SemanticIDs.load(tmp_path), table(8, seed=1, collisions="extra_level"))
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "notes.txt"}


@pytest.mark.parametrize("name", ["config.json", "ids.npy", "items.json", "semantic_ids.json"])
def test_files_of_something_else_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=name.replace(".", r"\.")):
        table().save(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "{}"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        table().save(tmp_path / "file")


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interrupted_save_leaves_the_old_table_or_is_noticed(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the files was the last to be replaced, and nothing half-written stays."""
    old, new = table(3), table(8, seed=1)
    old.save(tmp_path)
    replace, replaced = Path.replace, []

    def failing(self: Path, target: Path) -> Path:
        if target.name in (saving.CODES, saving.ITEMS, saving.DESCRIPTION):
            if len(replaced) == after:
                raise OSError("no space left on device")
            replaced.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    if after == 3:
        new.save(tmp_path)
    else:
        with pytest.raises(OSError, match="no space left"):
            new.save(tmp_path)
    monkeypatch.undo()
    assert {file.name for file in tmp_path.iterdir()} == FILES
    if after == 3:
        assert_same(SemanticIDs.load(tmp_path), new)
    else:
        with pytest.raises(ValueError, match=r"does not belong to .*semantic_ids\.json"):
            SemanticIDs.load(tmp_path)
        new.save(tmp_path)
        assert_same(SemanticIDs.load(tmp_path), new)


def test_a_disk_that_is_full_at_once_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = table(3)
    old.save(tmp_path)

    def failing(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(saving, "save_quantizer", failing)
    with pytest.raises(OSError, match="no space left"):
        table(8, seed=1).save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    assert_same(SemanticIDs.load(tmp_path), old)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: cut(folder / "ids.npy"), ValueError, r"ids\.npy does not belong to"),
        (lambda folder: cut(folder / "items.json"), ValueError, r"items\.json does not belong to"),
        (lambda folder: cut(folder / "semantic_ids.json"), ValueError, r"is not a description of semantic IDs"),
        (lambda folder: (folder / "ids.npy").unlink(), FileNotFoundError, r"there is no ids\.npy in"),
        (lambda folder: (folder / "semantic_ids.json").unlink(), FileNotFoundError, r"no semantic_ids\.json in"),
        (lambda folder: quantizers.save(build("residual", 5), folder), ValueError, r"model\.safetensors does not"),
    ],
)
def test_damage_is_named(
    damage: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    table().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        SemanticIDs.load(tmp_path)


def test_a_later_format_is_named(tmp_path: Path) -> None:
    table().save(tmp_path)
    file = tmp_path / "semantic_ids.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ValueError, match="has format 9, expected 1"):
        SemanticIDs.load(tmp_path)
