"""The tables of times for docs/results/speed.md. They come from the JSON, so that the two agree."""

from typing import Any

from benchmarks.kernels.cells import percent
from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, TRAINING
from benchmarks.kernels.rivals import ADDMM, CDIST, FAISS, OURS, PEER, SKLEARN
from benchmarks.kernels.steps import EMA, PEER_EMA, PEER_VQ, VQ

SEARCH = (FAISS, SKLEARN, ADDMM, CDIST, PEER)
HEADINGS = (
    "N × K × D", "search ms", *SEARCH, "bare GEMM", "VQ step ms", f"{PEER}", "EMA step ms", f"{PEER}",
)  # fmt: skip


def summary(record: dict[str, Any]) -> str:
    """Return Markdown: this library's medians in milliseconds, and the ratio of each rival's.

    Args: record: the output of `python -m benchmarks kernels` for a CPU, with every rival measured.
    """
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    for search, step in zip(record["search"], record["training_step"], strict=True):
        times, steps = search["times_ms"], step["times_ms"]
        gemm = min((rival.name for rival in GEMMS if rival.name in times), key=lambda name: times[name]["median"])
        cells = [
            " × ".join(str(search["shape"][axis]) for axis in "nkd"),
            _milliseconds(times[OURS]),
            *(_ratio(times[name], times[OURS]) for name in (*SEARCH, gemm)),
        ]
        for ours, peer in ((VQ, PEER_VQ), (EMA, PEER_EMA)):
            cells += [_milliseconds(steps[ours]), _ratio(steps[peer], steps[ours])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


REAL_HEADINGS = (
    "data", "N × K × D", "pairs scored", "bare GEMM ms", "faiss ms",
    "all codes ms", "evaluation ms", "training ms",
)  # fmt: skip


def real_summary(record: dict[str, Any]) -> str:
    """Return Markdown: medians on real data in milliseconds, and how many times as fast as the bare product.

    Args: record: as for `summary`.
    """
    lines = ["| " + " | ".join(REAL_HEADINGS) + " |", "| --- | --- |" + " ---: |" * (len(REAL_HEADINGS) - 2)]
    for row in record["real_data"]:
        times, product = row["times_ms"], row["times_ms"][row["gemm"]]
        cells = [
            row["data"],
            " × ".join(str(row["shape"][axis]) for axis in "nkd"),
            f"{percent(row['share'])} %",
            _milliseconds(product),
            _milliseconds(times[FAISS]),
            *(
                f"{_milliseconds(times[name])} ({_ratio(product, times[name])}×)"
                for name in (ALL_CODES, EVALUATION, TRAINING)
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _milliseconds(times: dict[str, float]) -> str:
    return f"{times['median']:.3g}"


def _ratio(times: dict[str, float], ours: dict[str, float]) -> str:
    """Return the ratio, preceded by "≈" if the middle halves of the runs overlap."""
    ratio = times["median"] / ours["median"]
    same = times["lower"] <= ours["upper"] and ours["lower"] <= times["upper"]
    return f"{'≈ ' if same else ''}{ratio:.{2 if ratio < 10 else 0}f}"
