"""The tables of a prior over captions and codes, from its record."""

from typing import Any

from benchmarks.sheets import Sheet

NOTE = (
    "The prior models the words of a caption, then the codes. Guidance g: logits (1 + g) · l(caption) − g · l(∅), "
    "where ∅ is an empty caption. Recognised: share of the images that a support vector "
    "machine, fitted to the training images, assigns to the caption's digit. Ink: mean of the pixels, from 0 to "
    "1; width: standard deviation of the ink's column, in pixels; both for captions with the first adjective, "
    "with neither, and with the second. In the third asked for: share of the images whose ink or width lies in "
    "that third of the training images of the same digit; by chance, 33 %."
)


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return a table of bits, and one of images and their captions. `NOTE` explains them."""
    names = {
        "code_given_caption": "a code, given its caption",
        "code_given_empty": "a code, given an empty caption",
        "caption": "a caption",
    }
    rows = [
        [name, *(f"{record[part][key]:.3f}" for part in ("training", "held_out"))] for key, name in names.items()
    ]
    samples = record["samples"]
    headings = ["", "recognised %"]
    for each in samples[0]["attributes"]:
        adjectives = " / ".join(adjective or "neither" for adjective in each["adjectives"])
        headings += [f"{each['name']}: {adjectives}", "in the third asked for %"]
    return [
        Sheet("Captions and codes of digits, bits", ["", "training", "held out"], rows),
        Sheet("Images and their captions", headings, [_row(each) for each in samples]),
    ]


def _row(sample: dict[str, Any]) -> list[str]:
    cells = [sample["name"], f"{100 * sample['recognised']:.1f}"]
    for each in sample["attributes"]:
        cells.append(" / ".join(f"{mean:.3f}" for mean in each["means"]))
        cells.append(" / ".join(f"{100 * share:.0f}" for share in each["followed"]))
    return cells
