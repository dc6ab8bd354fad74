"""`python -m quantizers fit`: a quantizer, and the codes of all embeddings, from a file."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from quantizers.cli.common import BatchSize, Column, Device, Embeddings, Items, console
from quantizers.cli.exits import RESUMABLE, agreed, interruptible, sentences
from quantizers.cli.fitted import fitted_once
from quantizers.cli.progress import shown_on
from quantizers.cli.ranks import find_device, group, is_first
from quantizers.cli.results import write_results
from quantizers.cli.settings import Collisions, FitSettings, Method, prepare
from quantizers.cli.summary import lines, say, say_files, usage_table
from quantizers.fitting import fit

LARGEST_SEED = 2**63 - 1


def command(
    embeddings: Embeddings,
    quantizer: Annotated[
        str,
        typer.Option(
            "--quantizer",
            metavar="NAME",
            help="residual: each level quantizes what the levels before it left, as for semantic IDs. vq: one "
            "codebook, k-means. grouped: product codes. opq: product codes after a learned rotation. Any other "
            "name of quantizers.available() whose codes are a table works too.",
        ),
    ] = "residual",
    levels: Annotated[
        int | None,
        typer.Option(
            "--levels",
            min=1,
            metavar="L",
            help="The number of levels, groups or heads. Default: 3 for residual, else the quantizer's own.",
        ),
    ] = None,
    codebook_size: Annotated[
        int, typer.Option("--codebook-size", min=1, metavar="K", help="The codes of each codebook.")
    ] = 256,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Another option of the quantizer, such as distance=cosine; may be repeated. "
            "quantizers.options(NAME) lists them.",
        ),
    ] = None,
    collisions: Annotated[
        Collisions | None,
        typer.Option(
            "--collisions",
            help="What happens to items with equal codes. next_code: the nearest keeps the ID, the others take "
            "the next free code of the last level. auction: free codes of the last level with the smallest total "
            "distance. extra_level: one more number that counts them. keep: they stay equal. Default: next_code "
            "for several levels, keep for one.",
            show_default=False,
        ),
    ] = None,
    items: Items = None,
    column: Column = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="nested: k-means on growing random samples, then on all vectors. lloyd: k-means on all vectors "
            "from the start. minibatch: random batches, for the largest files.",
        ),
    ] = "nested",
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", min=1, metavar="N", help="At most so many passes over all vectors for each codebook."
        ),
    ] = 8,
    batch_size: BatchSize = 65536,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, metavar="N", help="Seed of all random draws.")
    ] = 0,
    format: Annotated[
        Literal["npy", "parquet"],
        typer.Option(
            "--format",
            help="The table of codes: ids.npy, integers [count, levels], or ids.parquet with the columns item, "
            "level_1, level_2, ... (needs the extra parquet).",
        ),
    ] = "npy",
    device: Device = "cpu",
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of the results.")] = Path("ids"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, even if an interrupted run could be resumed.")
    ] = False,
) -> None:
    """Fit a quantizer to a file of embeddings, and give each embedding its codes.

    Example:  python -m quantizers fit items.npy --levels 3 --codebook-size 256 --out ids

    This gives each of the items an ID of three codes: similar items share their first codes, and no two items have
    the same ID. One codebook of 500 speech units by k-means:

    Example:  python -m quantizers fit frames.npy --quantizer vq --codebook-size 500 --out units

    Writes into --out: the quantizer (config.json and model.safetensors, which quantizers.load reads), ids.npy or
    ids.parquet, report.json with all numbers, and report.png, a page to look at. Results from before are replaced
    when the new ones are complete.

    Ctrl-C or a kill loses at most the current pass: run the same command again to resume. The result equals that
    of an uninterrupted run. On several processes, `torchrun --nproc-per-node 8 -m quantizers fit ...` divides the
    file among them, and the first one writes.
    """
    shown = console()
    with sentences(), interruptible(RESUMABLE):
        target = find_device(device)
        settings = FitSettings(
            embeddings, quantizer, levels, codebook_size, tuple(option or ()), collisions, items, column, method,
            epochs, batch_size, seed, format, device, out,
        )  # fmt: skip
        with group(target):
            prepared = agreed(lambda: prepare(settings, fresh=fresh))
            prepared.quantizer.to(target)
            with shown_on(shown) as progress:
                run = partial(
                    fit,
                    prepared.quantizer,
                    prepared.vectors,
                    method=method,
                    epochs=epochs,
                    batch_size=batch_size,
                    seed=seed,
                    progress=progress if is_first() else None,
                    checkpoint=settings.checkpoint,
                )
                report = fitted_once(settings, prepared, run)
        if not is_first():
            return
        with shown_on(shown) as progress:
            assigned, written = write_results(settings, prepared, report, progress)
        shown.print(usage_table(report.codebooks))
        say(shown, lines(report, prepared.quantizer, assigned, prepared.collisions))
        say_files(shown, out, written)
