"""How many examples a law gets: fewer in the profile of `make test` than in that of `make fuzz`.

Not imported by conftest.py: the profile of hypothesis must be chosen first.
"""

from hypothesis import settings

USUAL = 25
"""The examples of a law in the default profile of conftest.py."""


def examples(usual: int) -> settings:
    """Settings for a law that gets `usual` examples where others get 25, and in proportion in other profiles."""
    scaled = usual * settings.default.max_examples // USUAL  # type: ignore[union-attr]
    return settings(max_examples=max(scaled, min(usual, 5)))


for_each_case = examples(10)
"""For a law that is tried on every quantizer in turn."""
