"""The names of items: a column beside the embeddings, or a text file."""

from pathlib import Path
from typing import Any

from quantizers.cli.exits import InputError
from quantizers.cli.writing import import_pyarrow

COLUMNAR = (".parquet", ".arrow", ".feather")


def read_items(given: str | None, embeddings: str, count: int | None) -> list[str | int] | None:
    """The names of the items in the order of the embeddings; None if there is no option `--items`.

    Args:
        given: the option's value, a column of the file of embeddings or a text file.
        embeddings: the file of embeddings. count: how many there are; None while that is unknown.

    Raises: InputError where there is neither such a column nor such a file, for another number of names, and for a
        column of anything but strings and integers.
    """
    if given is None:
        return None
    if Path(embeddings).suffix in COLUMNAR and given in (columns := _columns(embeddings)):
        names = _column(embeddings, given)
    elif Path(given).is_file():
        names = list(Path(given).read_text(encoding="utf-8").splitlines())
    elif Path(embeddings).suffix in COLUMNAR:
        raise InputError(
            f"--items: {given!r} is neither a column of {embeddings} ({', '.join(columns)}) nor a file"
        )
    else:
        raise InputError(f"--items: there is no file {given}, expected a text file with one name per line")
    if count is not None and len(names) != count:
        raise InputError(
            f"--items: {given} has {len(names):,} names for {count:,} embeddings, expected one for each"
        )
    return names


def _columns(embeddings: str) -> list[str]:
    """The names of a file's columns."""
    return list(_dataset(embeddings).schema.names)


def _column(embeddings: str, name: str) -> list[str | int]:
    values = _dataset(embeddings).to_table(columns=[name]).column(name)
    names: list[str | int] = values.to_pylist()
    kinds = {type(value) for value in names}
    if values.null_count or not (kinds <= {str} or kinds <= {int}):
        raise InputError(
            f"--items: column {name!r} has values of type {values.type} and {values.null_count} missing ones, "
            "expected a string or an integer for each item"
        )
    return names


def _dataset(embeddings: str) -> Any:
    import_pyarrow()
    from pyarrow import dataset

    form = "parquet" if Path(embeddings).suffix == ".parquet" else "feather"
    return dataset.dataset(embeddings, format=form)
