"""Bits per pixel of held-out images: their codes stored in four ways, and picture formats at the same PSNR."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks.chain import coding, formats, levels, priors
from benchmarks.chain.loop import OnStep
from benchmarks.chain.priors import Fitted
from benchmarks.chain.reconstruction import Trained, mean_square, raw_bits
from benchmarks.chain.settings import TRANSFORMER
from benchmarks.chain.sources import Batch, Source, cut, to_grey_levels
from benchmarks.evaluation import psnr
from quantizers.bitstream import Alphabet, Counts, compress, decompress
from quantizers.bitstream.codec import MOST_ELEMENTS
from quantizers.bitstream.header import read_stream

COUNTED = 50_000  # least number of training codes for the static coder's counts


@dataclass(frozen=True)
class Rate:
    """One way to store the images.

    bits     of all images
    quality  of a lossy format, None for the others
    """

    name: str
    bits: float
    bits_per_pixel: float
    psnr_db: float
    quality: int | None = None


@dataclass(frozen=True)
class Coded:
    """The compressed held-out images.

    exact     whether codes, labels and images decoded from the bytes equal the encoded ones bit for bit
    overhead  the prior's payload over its cross entropy, minus 1; both exclude headers and labels
    """

    rates: list[Rate]
    data: bytes
    exact: bool
    overhead: float
    images: int
    pixels: int

    def record(self) -> dict[str, object]:
        """Return the numbers for the JSON."""
        numbers = {key: value for key, value in asdict(self).items() if key != "data"}
        return {**numbers, "file_bytes": len(self.data)}


def to_code(trained: Trained, fitted: Fitted) -> Batch:
    """Return the held-out images; for a transformer, tiles of them as large as the images that it was fitted
    on."""
    if fitted.settings.model == TRANSFORMER:
        return tiles(trained.source, fitted.side)
    return trained.source.held_out()


def tiles(source: Source, side: int) -> Batch:
    """Return the held-out images, cut into tiles of this side unless they have labels."""
    held_out = source.held_out()
    if held_out.labels is not None:
        return held_out
    return Batch(cut(held_out.images, min(side, *held_out.images.shape[2:])), None)


def code(trained: Trained, fitted: Fitted, batch: Batch, *, device: str, on_step: OnStep) -> Coded:
    """Encode, decode from the bytes alone, compare, and report the sizes next to those of other methods."""
    classes = trained.source.classes
    codes = levels.encode(trained.model, batch.images)
    data = coding.write(fitted, codes, batch, classes, on_step)
    decoded = coding.read(data, fitted, classes, device, on_step)
    images, again = levels.decode(trained.model, codes), levels.decode(trained.model, decoded.codes)
    cross_entropy = sum(priors.bits(fitted, codes, batch))
    original, copy = to_grey_levels(batch.images), to_grey_levels(images)
    quality = psnr(mean_square(original, copy))
    pixels = batch.images[:, 0].numel()
    labels = priors.label_bits(batch, classes)
    sizes = {
        "raw indices": float(raw_bits(codes, levels.sizes_of(trained.model))),
        "static coder": 8.0 * len(static(trained, fitted.side, codes)),
        "prior, cross entropy": cross_entropy + labels,
        "prior, coded": 8.0 * len(data),
    }
    rates = [Rate(name, bits, bits / pixels, quality) for name, bits in sizes.items()]
    rates += [_format_rate(file, pixels) for file in picture_files(original, quality)]
    exact = _same(codes, decoded.codes) and torch.equal(images, again) and _same_labels(batch, decoded)
    overhead = payload_bits(data, len(codes)) / cross_entropy - 1
    return Coded(rates, data, exact, overhead, len(batch.images), pixels)


def static(trained: Trained, side: int, codes: levels.Codes) -> bytes:
    """Compress the codes with a static model: counts of the training set's codes plus one, known to both sides."""
    images = math.ceil(COUNTED / math.prod(levels.grids(trained.model, side, side)[-1]))
    train = trained.source.batch(images, side, torch.Generator().manual_seed(trained.settings.seed)).images
    streams = []
    for seen, own, sizes in zip(
        levels.encode(trained.model, train), codes, levels.sizes_of(trained.model), strict=True
    ):
        alphabet = Alphabet.codebooks(sizes)
        counts = Counts([table + 1 for table in Counts.of(seen, alphabet).tables])
        streams.append(compress(own, alphabet, counts))
        if not torch.equal(decompress(streams[-1], counts), own.cpu()):
            raise RuntimeError("the static coder's bytes do not decode to the encoded codes")
    return b"".join(streams)


def picture_files(original: Tensor, target_db: float) -> list[formats.File]:
    """Return PNG, and lossy formats as near to the target PSNR as possible."""
    lossy = [formats.nearest_quality(name, original, target_db) for name in formats.QUALITIES]
    return [formats.lossless(original), *(file for file in lossy if file is not None)]


def payload_bits(data: bytes, count: int) -> int:
    """Return the bits of the last `count` streams without their headers, so that labels are excluded."""
    payloads = []
    while data:
        length = int.from_bytes(data[: coding.LENGTH], "little")
        stream, data = data[coding.LENGTH : coding.LENGTH + length], data[coding.LENGTH + length :]
        payloads.append(8 * len(read_stream(stream, MOST_ELEMENTS)[1]))
    return sum(payloads[-count:])


def _format_rate(file: formats.File, pixels: int) -> Rate:
    return Rate(file.name, 8.0 * file.size, 8 * file.size / pixels, file.psnr_db, file.quality)


def _same(codes: levels.Codes, others: levels.Codes) -> bool:
    return all(torch.equal(one.cpu(), other.cpu()) for one, other in zip(codes, others, strict=True))


def _same_labels(batch: Batch, decoded: coding.Decoded) -> bool:
    if batch.labels is None or decoded.labels is None:
        return batch.labels is decoded.labels
    return torch.equal(batch.labels, decoded.labels)
