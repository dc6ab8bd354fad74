"""The fourth stage: compress codes with the priors' probabilities, and decompress them from the bytes alone.

A file contains the stream of labels, if there are classes, then a stream for each level, top first. Four
little-endian bytes with its length precede each stream. The streams are those of `quantizers.bitstream.Encoder`,
which contain their shape and a checksum. A label costs log₂ of the number of classes.

Both sides compute the probabilities step by step, so that they are equal to the last bit; a forward on the whole
grid sums in another order. The coder gives every code a probability of at least 2⁻²⁴. Codes that a prior considers
less likely therefore take fewer bits than the prior says.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.chain import levels
from benchmarks.chain.loop import OnStep
from benchmarks.chain.priors import Fitted, condition
from benchmarks.chain.sources import Batch
from benchmarks.errors import InputError
from benchmarks.models.checks import check_codes
from benchmarks.models.condition import Condition
from benchmarks.models.prior import Prior, Steps
from benchmarks.utilization import repeatable_convolutions
from quantizers.bitstream import BitstreamError, Decoder, Encoder
from quantizers.bitstream.coder import constriction_stream

LENGTH = 4  # bytes


class Decoded(NamedTuple):
    """Decoded images.

    codes   the codes of each level
    labels  [B], None without classes
    """

    codes: levels.Codes
    labels: Tensor | None


def check_installed() -> None:
    """Check for the coder's package before any training. Raises: InputError without it."""
    try:
        constriction_stream()
    except ImportError as error:
        raise InputError(str(error)) from error


def write(fitted: Fitted, codes: levels.Codes, batch: Batch, classes: int | None, on_step: OnStep) -> bytes:
    """Return the bytes of the file. `on_step(finished codes per image, 0)` reports progress.

    Raises: InputError for codes outside a prior's alphabet.
    """
    for prior, level_codes in zip(fitted.priors, codes, strict=True):
        check_codes("codes", level_codes, prior.sizes)
    streams = [] if classes is None else [_write_labels(batch.labels, classes)]
    done = 0
    for level, prior in enumerate(fitted.priors):
        known = condition(batch, codes, level, codes[level].device)
        streams.append(_write_level(prior, codes[level], known, on_step, done))
        done += codes[level][0].numel()
    return b"".join(len(stream).to_bytes(LENGTH, "little") + stream for stream in streams)


def read(data: bytes, fitted: Fitted, classes: int | None, device: str, on_step: OnStep) -> Decoded:
    """Decode what was written. Raises: InputError for bytes of another kind, or written with other priors."""
    streams = _split(data, len(fitted.priors) + (classes is not None))
    try:
        labels = None if classes is None else _read_labels(streams.pop(0), classes)
        codes: levels.Codes = ()
        done = 0
        for level, (prior, stream) in enumerate(zip(fitted.priors, streams, strict=True)):
            known = condition(Batch(torch.empty(0), labels), codes, level, device)
            codes += (_read_level(prior, stream, known, device, on_step, done),)
            done += codes[-1][0].numel()
    except (BitstreamError, ValueError) as error:
        raise InputError(f"the bytes cannot be decoded with these checkpoints: {error}") from error
    return Decoded(codes, labels)


def _write_level(prior: Prior, codes: Tensor, known: Condition, on_step: OnStep, done: int) -> bytes:
    encoder = Encoder(codes.shape, max(prior.sizes))
    with repeatable_convolutions():
        steps = prior.start(len(codes), tuple(codes.shape[1:3]), known)
        for step, column in enumerate(codes.flatten(1).unbind(1)):
            encoder.put(column, _probabilities(steps, max(prior.sizes)))
            steps.append(column)
            on_step(done + step + 1, torch.zeros(()))
    return encoder.finish()


def _read_level(prior: Prior, stream: bytes, known: Condition, device: str, on_step: OnStep, done: int) -> Tensor:
    decoder = Decoder(stream)
    if (
        len(decoder.shape) != 4
        or decoder.shape[3] != len(prior.sizes)
        or decoder.codebook_size != max(prior.sizes)
    ):
        raise InputError(
            f"the stream has codes of shape {decoder.shape} from {decoder.codebook_size}; expected [B, h, w, "
            f"{len(prior.sizes)}] from {max(prior.sizes)}: it was written with other checkpoints"
        )
    columns: list[Tensor] = []
    with repeatable_convolutions():
        steps = prior.start(decoder.shape[0], decoder.shape[1:3], known)
        while steps.left:
            columns.append(decoder.take(_probabilities(steps, max(prior.sizes))).to(device))
            steps.append(columns[-1])
            on_step(done + len(columns), torch.zeros(()))
    return torch.stack(columns, 1).view(decoder.shape)


def _probabilities(steps: Steps, size: int) -> Tensor:
    """Return the next codes' probabilities [B, size] on the CPU, zero for codes that a smaller codebook lacks."""
    found = steps.logits().cpu().double().softmax(-1)
    return torch.nn.functional.pad(found, (0, size - found.shape[1]))


def _write_labels(labels: Tensor | None, classes: int) -> bytes:
    if labels is None:
        raise InputError("there are no labels, but the prior is conditioned on them")
    encoder = Encoder(labels.shape, classes)
    encoder.put(labels, _uniform(len(labels), classes))
    return encoder.finish()


def _read_labels(stream: bytes, classes: int) -> Tensor:
    decoder = Decoder(stream)
    return decoder.take(_uniform(decoder.shape[0], classes))


def _uniform(count: int, classes: int) -> Tensor:
    return torch.full((count, classes), 1 / classes, dtype=torch.float64)


def _split(data: bytes, count: int) -> list[bytes]:
    streams = []
    for _ in range(count):
        length, data = int.from_bytes(data[:LENGTH], "little"), data[LENGTH:]
        streams.append(data[:length])
        if len(streams[-1]) < length or not length:
            raise InputError(
                "the bytes end before the last stream: they are truncated, or written with other checkpoints"
            )
        data = data[length:]
    if data:
        raise InputError(f"{len(data)} bytes follow the last stream: the file was written with other checkpoints")
    return streams
