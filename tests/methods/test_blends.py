"""Which convolution a scale passes, if scales share a few."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantizers.composite.blends import nearest_mark


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_mark_is_numpys(count: int, scales: int, data: st.DataObject) -> None:
    """VAR's published code spreads marks with numpy, and rounding decides between two at the same distance."""
    place = data.draw(st.integers(0, scales - 1)) / max(scales - 1, 1)
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    marks = np.linspace(margin, 1 - margin, count)
    assert nearest_mark(place, count) == np.argmin(np.abs(marks - place))


def test_the_published_scales() -> None:
    assert [nearest_mark(position / 9, 4) for position in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [nearest_mark(position / 9, 10) for position in range(10)] == [*range(10)]
