"""The page of a fit, and its arithmetic."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from quantizers.cli.picture import Page, colours_of, draw, percent, principal_components


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 40))
def test_components_keep_what_they_explain(seed: int, dim: int, count: int) -> None:
    """The coordinates have the largest variances, are uncorrelated, and do not depend on the offset."""
    x = np.random.default_rng(seed).normal(size=(count, dim)) * np.arange(1, dim + 1)
    points, explained = principal_components(x)
    centred = x - x.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred)
    # Eigenvalues are exact to some roundings of the largest one.
    assert np.square(points).sum(0) == pytest.approx(values[[-1, -2]], rel=1e-9, abs=1e-12 * values[-1])
    assert points[:, 0] @ points[:, 1] == pytest.approx(0, abs=1e-9 * values[-1])
    assert explained == pytest.approx(values[[-1, -2]] / values.sum(), abs=1e-12)
    assert np.allclose(np.abs(principal_components(x + 7)[0]), np.abs(points), atol=1e-6 * np.sqrt(values[-1]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_a_code_has_one_colour(seed: int, count: int) -> None:
    draws = np.random.default_rng(seed)
    codes = draws.integers(0, 5, size=count)
    colours = colours_of(draws.normal(size=(count, 2)), codes)
    assert colours.shape == (count, 3)
    assert (colours >= 0).all()
    assert (colours <= 1).all()
    for code in np.unique(codes):
        assert len(np.unique(colours[codes == code], axis=0)) == 1


@pytest.mark.parametrize(
    "page",
    [
        Page(
            "many levels",
            "",
            [np.array([3, 0, 1])] * 9,
            [[1.0, 0.5]] * 9,
            np.eye(4),
            np.arange(4),
            [("a", 0.5), ("b", 0.0)],
        ),
        Page("one code", "", [np.array([5])], [[0.0]], np.ones((5, 1)), np.zeros(5, int), []),
        Page("no pass", "", [np.array([2, 1])], [[]], np.zeros((3, 2)), np.array([0, 0, 1]), []),
        Page("uneven", "", [np.array([1000, 1])], [[0.1]], np.eye(3), np.array([0, 0, 1]), []),
    ],
    ids=lambda page: page.title,
)
def test_degenerate_pages_are_drawn(page: Page) -> None:
    draw(Path("page.png"), page)
    assert image.imread("page.png").shape[:2] == (1066, 1430)


def test_percent_has_three_digits() -> None:
    assert [percent(share) for share in (0.0, 1.0, 0.12345, 0.00012345)] == ["0 %", "100 %", "12.3 %", "0.0123 %"]
