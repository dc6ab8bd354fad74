"""The JSON with all rows, and the tables that come from it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import machine
from benchmarks.kernels.report import installed_versions
from benchmarks.machine import caption
from benchmarks.search import compare
from benchmarks.search.compare import Show, cells
from benchmarks.search.run import Results, Rows
from benchmarks.search.settings import Chosen
from benchmarks.seeds import Column
from benchmarks.sheets import NOTHING, Sheet, markdown_rows
from benchmarks.sweep.cuts import Mean
from benchmarks.sweep.report import words

TITLE = "Compressed search and semantic IDs"
SEARCH = (
    Column("error %", "error", ".2f", 100),
    Column("recall@1 %", "recall_1", ".1f", 100),
    Column("recall@10 %", "recall_10", ".1f", 100),
    Column("fit s", "fit_seconds", ".2f"),
    Column("encode s", "encode_seconds", ".2f"),
)
ITEMS = (
    Column("collide\n%", "collisions", ".3f", 100),
    Column("error\n%", "error", ".2f", 100),
    Column("1 code\n%", "prefix_1", ".1f", 100),
    Column("chance\n%", "chance_1", ".2f", 100),
    Column("2 codes\n%", "prefix_2", ".1f", 100),
    Column("chance\n%", "chance_2", ".3f", 100),
    Column("fit\ns", "fit_seconds", ".2f"),
    Column("assign\ns", "assign_seconds", ".2f"),
)
CACHING = (
    Column("bits per channel", "bits", "g"),
    Column("error %", "error", ".3f", 100),
    Column("attention error %", "attention_error", ".3f", 100),
    Column("bits per byte", "bits_per_byte", ".4f"),
)
SEARCH_EXPLANATION = (
    "Each cell is the mean over the seeds, with the lowest and the highest in parentheses. Training, base and "
    "query vectors are disjoint. Error is the squared distance between base vectors and decoded codes, as a "
    "percentage of the vectors' variance. Recall@R is the share of queries whose true nearest neighbour is among "
    "the R nearest decoded base vectors; queries are not encoded, and both searches are exact. Greedy and beam "
    "are two searches with the same codebooks, so their seconds to fit are the same. Faiss trains its residual "
    "codebooks with a beam. QINCo is slow to train and to encode, so it runs with the first seed at one rate."
)
ITEM_EXPLANATION = (
    "The first column has the number of items, levels × codes of each level, policy and library. Collide: the "
    "share of items that share their ID with another item. 1 code, 2 codes: the share of items whose true nearest "
    "neighbour has the same prefix of one or two codes; chance: the probability of this for two items drawn at "
    "random. Error is the squared distance between vectors and decoded IDs, as a percentage of the vectors' "
    "variance. The policy `keep` leaves collisions as they are. All policies start from the codes of the same fit."
)
CACHING_EXPLANATION = (
    "A small transformer is trained on bytes of text. Codes, shared by the heads of a layer, are fitted to its "
    "keys and values, and replace them on other text. Error is that of keys and values as a percentage of their "
    "variance, attention error that of the attention's output for the same queries: means over layers. Bits per "
    "byte are the model's cross entropy with all layers compressed. Rounding has equal intervals in each channel."
)


def full_record(chosen: Chosen, results: Results) -> dict[str, Any]:
    """Return the JSON: settings, machine and versions, and every row."""
    where = machine.record(torch.device("cpu"))
    where["versions"] |= {name: each for name, each in installed_versions().items() if name == "faiss-cpu"}
    return {
        "benchmark": "search",
        "settings": {part: asdict(settings) for part, settings in chosen._asdict().items()},
        **where,
        "search": results.search,
        "items": results.items,
        "caching": results.caching,
        "left_out": results.left_out,
        "interrupted": results.interrupted,
    }


def sheets(record: dict[str, Any], show: Show = words) -> list[Sheet]:
    """Return the comparison, a table of compressed search for each kind of vectors, and those of the other parts.

    Args: show: the text of a mean over seeds.
    """
    search: dict[str, Rows] = {}
    for row in record["search"]:
        search.setdefault(row["kind"], []).append(row)
    made = [search_sheet(kind, rows, show) for kind, rows in search.items()]
    if record["items"]:
        made.append(item_sheet(record, show))
    if record["caching"]:
        made.append(cache_sheet(record, show))
    return [*compare.sheets(record["search"], show), *made]


def search_sheet(kind: str, rows: Rows, show: Show) -> Sheet:
    """Return a table with a row for each rate and coder."""
    lines = [
        [f"{bits} bits, {method}, {library}", *cells(same, SEARCH, show)]
        for (bits, library, method), same in sorted(grouped(rows, ("bits", "library", "method")), key=_bits)
    ]
    return Sheet(f"Compressed search, {kind}", ["", *(column.heading for column in SEARCH)], lines)


def item_sheet(record: dict[str, Any], show: Show) -> Sheet:
    """Return a table with a row for each number of items, shape, library and policy."""
    keys = ("items", "levels", "codebook_size", "library", "policy")
    lines = [
        [f"{count}: {levels} × {size}\n{policy}, {library}", *cells(same, ITEMS, show)]
        for (count, levels, size, library, policy), same in grouped(record["items"], keys)
    ]
    kind = record["settings"]["items"]["kind"]
    return Sheet(f"Semantic IDs, {kind}", ["", *(column.heading for column in ITEMS)], lines)


def cache_sheet(record: dict[str, Any], show: Show) -> Sheet:
    """Return a table with a row for each way to compress keys and values."""
    lines = [[row["method"], *cells([row], CACHING, show)] for row in record["caching"]]
    return Sheet("Keys and values of a transformer", ["", *(column.heading for column in CACHING)], lines)


def without_range(value: Mean | None, form: str) -> str:
    """Return the mean alone, for the terminal."""
    return NOTHING if value is None else format(value.mean, form)


def notes(record: dict[str, Any]) -> list[str]:
    """Return sentences on what is missing."""
    return record["left_out"] + (["Interrupted: run the same command again to continue."] * record["interrupted"])


def markdown(record: dict[str, Any], pictures: Sequence[str]) -> str:
    """Return the tables, explanations, pictures, and a line on the machine."""
    lines = [f"**{TITLE}**", ""]
    for sheet in sheets(record):
        lines += [f"**{sheet.title}**", "", *markdown_rows(sheet), ""]
    lines += [f"![{TITLE}]({picture})\n" for picture in pictures]
    lines += [SEARCH_EXPLANATION, "", compare.EXPLANATION, "", ITEM_EXPLANATION, "", CACHING_EXPLANATION, ""]
    return "\n".join([*lines, f"{sizes(record)} {caption(record)}.", *(f"\n{note}" for note in notes(record)), ""])


def sizes(record: dict[str, Any]) -> str:
    """Describe the vectors in one sentence."""
    search = record["settings"]["search"]
    seeds = "1 seed" if len(search["seeds"]) == 1 else f"{len(search['seeds'])} seeds"
    return (
        f"{search['train']} training, {search['base']} base and {search['queries']} query vectors with "
        f"{search['dim']} channels, {seeds}, {search['codebook_size']} codes per codebook."
    )


def grouped(rows: Rows, keys: Sequence[str]) -> Iterable[tuple[tuple[Any, ...], Rows]]:
    """Group rows by the values of `keys`, in the order in which these first occur."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups.items()


def _bits(group: tuple[tuple[Any, ...], Rows]) -> int:
    return int(group[0][0])
