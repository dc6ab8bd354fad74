"""Tables of the comparison of priors, from its record."""

from typing import Any

from benchmarks.sheets import NOTHING, Sheet

NOTE = (
    "Bits: −log₂ p of the held-out images' codes, given the labels of digits; a masked transformer has no "
    "likelihood. Bits per code of two autoencoders do not compare; bits per image do as far as the PSNR of their "
    "copies is the same. Passes: forward passes for a sample; those of PixelCNN and the raster transformer "
    "compute one code each, from stored features. Seconds: of a batch of so many and of one image alone, at "
    "temperature 1, including the decoder; the median of three. Guidance moves the samples away from those "
    "without a label, more at each scale (VAR, arXiv 2404.02905); their likelihood is not known. Distances and "
    "recognised samples: as in the table of samples."
)


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return the tables of one comparison: priors, samples of digits, and the use of codes by scale."""
    sampled = [sample_sheet(record)] if record["priors"][0]["samples"] else []
    return [prior_sheet(record), *sampled, scale_sheet(record)]


def prior_sheet(record: dict[str, Any]) -> Sheet:
    """Return a table with a row per prior."""
    together = record["priors"][0]["together"]
    headings = [
        "",
        "parameters",
        "PSNR, dB",
        "bits, a code",
        "bits, an image",
        "recognised, %",
        "passes",
        f"s/image, of {together}",
        "s/image, alone",
    ]
    rows = [
        [
            each["name"],
            f"{each['parameters']:,}",
            f"{each['psnr_db']:.2f}",
            NOTHING if each["bits_per_code"] is None else f"{each['bits_per_code']:.3f}",
            NOTHING if each["bits_per_image"] is None else f"{each['bits_per_image']:.1f}",
            f"{100 * each['samples'][0]['recognised']:.1f}" if each["samples"] else NOTHING,
            str(each["passes"]),
            f"{each['seconds_together']:.2g}",
            f"{each['seconds_alone']:.2g}",
        ]
        for each in record["priors"]
    ]
    return Sheet(f"Priors compared, {record['name']}: {_images(record)}", headings, rows)


def sample_sheet(record: dict[str, Any]) -> Sheet:
    """Return a table of sampled digits with a row per prior and temperature."""
    rows = [
        [
            f"{each['name']}, temperature {samples['temperature']:g}",
            f"{samples['to_data']:.3f}",
            f"{samples['from_held_out']:.3f}",
            f"{100 * samples['recognised']:.1f}",
        ]
        for each in record["priors"]
        for samples in each["samples"]
    ]
    headings = ["", "to data", "from held out", "recognised %"]
    return Sheet(f"Samples of the priors compared, {record['name']}", headings, rows)


def scale_sheet(record: dict[str, Any]) -> Sheet:
    """Return a table of the codes that each scale of the multi-scale autoencoder uses."""
    rows = [
        [
            " × ".join(map(str, scale["size"])),
            f"{scale['vectors']:,}",
            f"{scale['used']}/{scale['codes']}",
            f"{100 * scale['used'] / scale['codes']:.1f}",
            f"{scale['perplexity']:.1f}",
        ]
        for scale in record["scales"]
    ]
    headings = ["scale", "vectors", "codes used", "used %", "perplexity"]
    return Sheet(f"Codes by scale, {record['name']}: {_images(record)}", headings, rows)


def _images(record: dict[str, Any]) -> str:
    return f"{record['images']} held-out images, {record['side']} × {record['side']}"
