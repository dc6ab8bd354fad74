"""Options that are lists. Needs no package beyond the standard library."""

from benchmarks.errors import InputError


def split_words(option: str, given: list[str] | None) -> list[str]:
    """Split comma-separated lists into words; no words if the option is not given.

    Raises: InputError for an option without a word.
    """
    words = [word.strip() for text in given or [] for word in text.split(",") if word.strip()]
    if given is not None and not words:
        raise InputError(f"{option}: got no value; expected at least one")
    return words
