"""IDs as tokens of a language model."""

from collections.abc import Sequence
from string import ascii_lowercase


def token(level: int, code: int) -> str:
    """The token of a code: <a_12> for code 12 at the first level, <b_12> at the second.

    After z come aa, ab and so on, so that every level has letters of its own.
    """
    letters, rest = "", level + 1
    while rest:
        rest, letter = divmod(rest - 1, len(ascii_lowercase))
        letters = ascii_lowercase[letter] + letters
    return f"<{letters}_{code}>"


def vocabulary(sizes: Sequence[int]) -> list[str]:
    """All tokens of levels with these numbers of codes, level by level."""
    return [token(level, code) for level, size in enumerate(sizes) for code in range(size)]
