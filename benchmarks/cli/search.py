"""`python -m benchmarks search`: codes of equal length for compressed search, and semantic IDs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cli.common import Fresh, Out, make_folder, whole_numbers
from benchmarks.cli.exits import INTERRUPTED, sentences
from benchmarks.cli.words import split_words
from benchmarks.errors import InputError
from benchmarks.files import write_json, write_text
from benchmarks.kernels.progress import bar
from benchmarks.offline.vectors import BLOCKS
from benchmarks.search import plots, report
from benchmarks.search.parts import Parts
from benchmarks.search.run import count, run
from benchmarks.search.settings import Caching, Chosen, Items, Settings, check
from benchmarks.sheets import rich_table


def _listed(values: tuple[int, ...], what: str) -> Any:
    default = ", ".join(map(str, values))
    return typer.Option(metavar="LIST", help=f"{what}, separated by commas. Default {default}.")


def command(
    kinds: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help=f"Separated by commas: {', '.join(BLOCKS)}. Default all."),
    ] = None,
    codebooks: Annotated[
        list[str] | None, _listed(Settings.codebooks, "Numbers of codebooks, each with 256 codes")
    ] = None,
    items: Annotated[list[str] | None, _listed(Items.counts, "Numbers of items with semantic IDs")] = None,
    seeds: Annotated[list[str] | None, _listed(Settings.seeds, "Seeds of data and fits")] = None,
    dim: Annotated[int, typer.Option(min=1, metavar="D", help="Channels of a vector.")] = Settings.dim,
    train: Annotated[int, typer.Option(min=1, metavar="N", help="Training vectors.")] = Settings.train,
    base: Annotated[int, typer.Option(min=1, metavar="N", help="Vectors to search.")] = Settings.base,
    queries: Annotated[int, typer.Option(min=1, metavar="N", help="Vectors to search for.")] = Settings.queries,
    qinco_steps: Annotated[
        int, typer.Option(min=0, metavar="N", help="Training steps of QINCo, the slowest method.")
    ] = Settings.qinco_steps,
    cache_steps: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Training steps of the transformer whose keys and values are compressed; 0 leaves this out.",
        ),
    ] = Caching.steps,
    out: Out = Path("runs/search"),
    fresh: Fresh = False,
) -> None:
    """Compare product, rotated product, residual and QINCo codes with those of faiss, at equal bits per vector.

    Measures distortion, recall of compressed search, and the seconds to fit and to encode; then semantic IDs:
    collisions under each policy, and how well prefixes keep nearest neighbours together; then what a transformer
    loses if its keys and values are codes.

    Takes about a quarter of an hour on two cores. Writes search.json, search.md and a picture. Ctrl-C or a kill
    loses only the current measurement: run the same command again.
    """
    console = Console()
    with sentences():
        search = Settings(
            kinds=_kinds(kinds),
            seeds=whole_numbers("--seeds", seeds, 0) or Settings.seeds,
            codebooks=whole_numbers("--codebooks", codebooks, 1) or Settings.codebooks,
            dim=dim,
            train=train,
            base=base,
            queries=queries,
            qinco_steps=qinco_steps,
        )
        check(search)
        fewest = max(size for _, size in Items.shapes)  # faiss fits no codebook to fewer vectors than codes
        counts = whole_numbers("--items", items, fewest) or Items.counts
        chosen = Chosen(search, Items(seeds=search.seeds, dim=dim, counts=counts), Caching(steps=cache_steps))
        parts = Parts(make_folder(out), fresh=fresh)
        with bar(console, count(chosen)) as started:
            results = run(chosen, parts, started)
    write_report(console, out, report.full_record(chosen, results))
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


def write_report(console: Console, out: Path, record: dict[str, Any]) -> None:
    """Write tables, JSON, Markdown and picture. Without any row, an earlier report is left unchanged."""
    if not any(record[part] for part in ("search", "items", "caching")):
        console.print(f"Interrupted before any measurement was finished; no new report was written to {out}.")
        return
    pictures = [path.name for path in plots.write(out, record)]
    write_json(out / "search.json", record)
    write_text(out / "search.md", report.markdown(record, pictures))
    for sheet in report.sheets(record, report.without_range):
        console.print(rich_table(sheet), "", highlight=False)
    for sentence in report.notes(record):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: search.json, search.md, {', '.join(pictures)}".rstrip(", "), highlight=False)


def _kinds(given: list[str] | None) -> tuple[str, ...]:
    """Return the named kinds, all if none is named. Raises: InputError for an unknown one."""
    named = tuple(dict.fromkeys(split_words("--kinds", given))) or Settings().kinds
    for kind in named:
        if kind not in BLOCKS:
            raise InputError(f"--kinds: got {kind!r}; expected {', '.join(BLOCKS)}")
    return named
