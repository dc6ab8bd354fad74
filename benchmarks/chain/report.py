"""The chain's tables on the terminal and in Markdown, and the JSON. All tables come from the JSON's record."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import machine
from benchmarks.chain import comparison_sheets, text_report
from benchmarks.chain.run import Results
from benchmarks.machine import caption
from benchmarks.sheets import NOTHING, Sheet, markdown_rows

RATES_NOTE = (
    "Bits of all held-out images divided by their pixels; PSNR of images rounded to 256 levels. All rows of "
    "codes have the same reconstruction. Raw indices: ⌈log₂ K⌉ bits per code. Static coder: counts of the "
    "training set's codes, known to both sides; the whole file. Prior, cross entropy: −log₂ p, with log₂ 10 "
    "bits for the label of each digit. Prior, coded: the whole file with headers. PNG, JPEG and WebP: one file "
    "with all images side by side; lossy formats at the quality with the nearest PSNR. Whatever else decoding "
    "needs is not counted: networks and counts for the codes, a library for the formats."
)
SAMPLES_NOTE = (
    "Distances are root mean squares over the pixels in [−1, 1], from each sample to the nearest training "
    "image, and from each held-out image to the nearest sample; they favour smooth samples. Data: training "
    "images; their distance to data is measured on held-out images. Recognised: share of the samples that a "
    "support vector machine, fitted to the training images, assigns to the digit that they were sampled for; "
    "for data, share of the held-out images."
)


def autoencoder_sheet(runs: Sequence[dict[str, Any]]) -> Sheet:
    """Return a table with a row per autoencoder: held-out quality and use of the codes."""
    headings = ["", "PSNR dB", "codes used", "raw bits/pixel", "entropy bits/pixel"]
    rows = []
    for run in runs:
        numbers = run["reconstruction"]
        rows.append(
            [
                run["name"],
                f"{numbers['psnr_db']:.2f}",
                f"{numbers['codes_used']}/{numbers['codes']}",
                f"{numbers['raw_bits_per_pixel']:.3f}",
                f"{numbers['entropy_bits_per_pixel']:.3f}",
            ]
        )
    return Sheet("Autoencoders, on held-out images", headings, rows)


def prior_sheet(runs: Sequence[dict[str, Any]]) -> Sheet:
    """Return a table of the priors' bits per code, at the end of training and on held-out images."""
    rows = [
        [f"{run['name']}, {each['level']}", *(f"{each[key]:.3f}" for key in ("training_bits", "held_out_bits"))]
        for run in runs
        for each in run["priors"]
    ]
    return Sheet("Priors, bits per code", ["", "training", "held out"], rows)


def rate_sheet(run: dict[str, Any]) -> Sheet:
    """Return a table with a row per way to store the images."""
    rows = [
        [
            rate["name"] + ("" if rate["quality"] is None else f", quality {rate['quality']}"),
            f"{rate['bits'] / 8:,.0f}",
            f"{rate['bits_per_pixel']:.3f}",
            "lossless" if rate["psnr_db"] is None or rate["psnr_db"] == float("inf") else f"{rate['psnr_db']:.2f}",
        ]
        for rate in run["coding"]["rates"]
    ]
    title = f"{run['name']}: {run['coding']['images']} held-out images, {run['coding']['pixels']:,} pixels"
    return Sheet(title, ["", "bytes", "bits/pixel", "PSNR dB"], rows)


def sample_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Return a table with a row per model's samples."""
    body = [
        [
            row["name"],
            f"{row['to_data']:.3f}",
            f"{row['from_held_out']:.3f}",
            NOTHING if row["recognised"] is None else f"{100 * row['recognised']:.1f}",
        ]
        for row in rows
    ]
    return Sheet("Samples of digits", ["", "to data", "from held out", "recognised %"], body)


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return all tables that the record has data for."""
    runs = record["parts"]
    made = [autoencoder_sheet(runs), prior_sheet(runs), *(rate_sheet(run) for run in runs)]
    made += [sample_sheet(record["samples"])] if record["samples"] else []
    made += [sheet for each in record["comparisons"] for sheet in comparison_sheets.sheets(each)]
    return made + [sheet for each in record["captions"] for sheet in text_report.sheets(each)]


def exactness(run: dict[str, Any]) -> str:
    """State whether decoding returned the encoded codes and images, and how near the coder comes to the prior."""
    coding = run["coding"]
    equal = "equal" if coding["exact"] else "DO NOT EQUAL"
    return (
        f"{run['name']}: codes and images decoded from the {coding['file_bytes']:,} bytes {equal} those encoded, "
        f"bit for bit; the payload is {100 * coding['overhead']:+.2f} % from the prior's cross entropy."
    )


def full_record(results: Results, device: str) -> dict[str, Any]:
    """Return the JSON: machine and versions, every run's settings and numbers, and the comparisons of samples and
    of priors, and the priors over captions.
    """
    return {
        "benchmark": "chain",
        **machine.record(torch.device(device)),
        "parts": results.parts,
        "samples": [row.record() for row in results.samples],
        "comparisons": results.comparisons,
        "captions": results.captions,
    }


def markdown(record: dict[str, Any], pictures: Sequence[str]) -> str:
    """Return all tables with explanations, the pictures, and a line on the machine."""
    lines: list[str] = []
    for sheet in sheets(record):
        lines += [f"**{sheet.title}**", "", *markdown_rows(sheet), ""]
        lines += [SAMPLES_NOTE, ""] if sheet.title == "Samples of digits" else []
    lines += [comparison_sheets.NOTE, ""] if record["comparisons"] else []
    lines += [text_report.NOTE, ""] if record["captions"] else []
    lines += [RATES_NOTE, "", *(f"- {exactness(run)}" for run in record["parts"]), ""]
    lines += [f"![{name.removesuffix('.png').replace('-', ' ')}]({name})\n" for name in pictures]
    return "\n".join([*lines, f"{caption(record)}."]) + "\n"
