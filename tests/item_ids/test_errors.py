"""Bad arguments are named in a sentence, and leave a table as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import quantizers
from quantizers.item_ids import SemanticIDs, semantic_ids
from tests.item_ids.cases import build

X = torch.arange(20.0).reshape(5, 4)


def table(**options: Any) -> SemanticIDs:
    return SemanticIDs.from_quantizer(build("residual", 0), X, **options)


NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: table(collisions="next"), ValueError, "collisions is 'next', expected one of 'next_code', "),
        (lambda: table(collisions=None), ValueError, "collisions is None, expected one of"),
        (lambda: table(items=["a", "b"]), ValueError, "items has length 2, but the tensor has 5 rows"),
        (lambda: table(items=["a", "b", "c", "d", "a"]), ValueError, "items contains 'a' twice"),
        (lambda: table(items="abcde"), TypeError, "items is 'abcde', expected a sequence of strings or integers"),
        (lambda: table(items=7), TypeError, "items is 7, expected a sequence"),
        (lambda: table(items=[0.5] * 5), TypeError, r"items\[0\] is 0\.5, expected a string or an integer"),
        (lambda: table(items=[0, 1, True, 3, 4]), TypeError, r"items\[2\] is True, expected a string"),
        (lambda: table(batch_size=0), ValueError, "batch_size is 0, expected an integer of at least 1"),
        (lambda: table().extend(X[:, :3]), ValueError, "the tensor has 3 channels, expected 4, the dim of"),
        (lambda: table(items=NAMES).extend(X), ValueError, "items is None, but the items in this table have"),
        (lambda: table(items=NAMES).extend(X[:2], ["f", "b"]), ValueError, "contains 'b', which has an ID"),
        (lambda: table(items=NAMES).extend(X[:2], ["f", "f"]), ValueError, "items contains 'f' twice"),
        (lambda: table().extend([X, X], range(5, 9)), ValueError, "items has length 4, but .* has 10 rows"),
        (lambda: SemanticIDs("residual"), TypeError, "quantizer is 'residual', expected a fitted Quantizer"),
        (lambda: SemanticIDs(quantizers.create("none", 4)), TypeError, "quantizer is Identity, expected one with"),
        (lambda: SemanticIDs(quantizers.create("multiscale", 4, codebook_size=4)), TypeError,
         "quantizer is MultiScaleQuantizer, expected one with codes for single vectors"),
        (lambda: table().items_with([0, 0, 0, 0]), ValueError, "prefix has 4 codes, expected at most 3"),
        (lambda: table().items_with("012"), ValueError, "prefix is '012', expected a sequence"),
        (lambda: table().next_codes([0, 0, 0]), ValueError, "prefix has 3 codes, expected at most 2"),
        (lambda: table().neighbours(0, 4), ValueError, "levels is 4, expected at most 3"),
        (lambda: table().neighbours(0, -1), ValueError, "levels is -1, expected an integer of at least 0"),
        (lambda: table()["f"], KeyError, "item 'f' has no ID"),
        (lambda: semantic_ids(X, levels=0), ValueError, "levels is 0, expected an integer of at least 1"),
        (lambda: semantic_ids(X, levels=3, codebook_size=[2, 2]), ValueError, "codebook_size has 2 numbers"),
        (lambda: semantic_ids(X, collisions="no"), ValueError, "collisions is 'no'"),
        (lambda: semantic_ids(X, items=["a"]), ValueError, "items has length 1, but the tensor has 5 rows"),
        (lambda: semantic_ids(X[0]), ValueError, "the tensor"),
        (lambda: semantic_ids(X), ValueError, "has 5 finite vectors, expected at least codebook_size=256"),
        (lambda: semantic_ids(X, levels=1, codebook_size=4), ValueError,
         "there are 5 items for 4 IDs .* expected no more"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("rows", [X[:, :3], X[:2], torch.ones(30, 4), [X, X[:, :3]]])
def test_a_table_stays_as_it_was(rows: Any) -> None:
    ids = table(items=NAMES)
    before = {item: ids[item] for item in ids}
    with pytest.raises(ValueError, match=r"channels|length"):
        ids.extend(rows, ["x", "y", "z"])
    assert {item: ids[item] for item in ids} == before
    assert ids.items == NAMES


def test_codes_that_are_not_finite_are_named() -> None:
    quantizer = build("residual", 0)
    quantizer.components[-1].embedding.data[1:] = torch.nan
    with pytest.raises(ValueError, match="a codebook of the quantizer contains codes that are not finite"):
        SemanticIDs.from_quantizer(quantizer, torch.ones(20, 4))
