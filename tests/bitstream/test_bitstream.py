"""Codes to bytes and back: the same indices, near their entropy, and an error for bytes that are not theirs."""

import math
import sys
import zlib
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import (
    FSQ,
    LFQ,
    GroupedQuantizer,
    Identity,
    MultiScaleQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from quantizers.bitstream import (
    Alphabet,
    BitstreamError,
    Counts,
    Decoder,
    Encoder,
    OwnCounts,
    Probabilities,
    compress,
    decompress,
)
from quantizers.bitstream.coder import BASE, PRECISION, Reader, Writer, frequencies, groups
from quantizers.bitstream.header import Header, read_stream, write_stream
from quantizers.bitstream.model import STEPS
from quantizers.bitstream.table import put_table, round_counts, take_table
from quantizers.monitoring.metrics import code_counts
from tests.effort import examples

PREFIX = 9  # bytes in front of what the checksum covers

sizes = st.one_of(st.integers(1, 20), st.sampled_from([BASE - 1, BASE, BASE + 1, 2 * BASE + 5, 2**17, 2**20]))
level_lists = st.lists(st.integers(1, 17), min_size=1, max_size=5) | st.sampled_from(
    [[2] * 63, [8] * 21, [2**20, 2**20, 2**20, 8], [1], [5000, 3]]
)
shapes = st.lists(st.integers(0, 5), max_size=3)


@st.composite
def drawn(draw: st.DrawFn, alphabet: Alphabet) -> Tensor:
    """Indices of an alphabet, spread or few; some are −1."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    leading = (*draw(shapes), draw(st.sampled_from([1, 7, 300])))
    few, missing = draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
    columns = []
    for section in alphabet.sections:
        codes = np.zeros((*leading, section.width), dtype=np.int64)
        weight = 1
        for level in section.levels:
            codes += rng.integers(0, min(level, 3) if few else level, codes.shape) * weight
            weight *= level
        columns.append(np.where(rng.random(codes.shape) < missing, -1, codes))
    indices = torch.from_numpy(np.concatenate(columns, -1))
    return indices if alphabet.composed else indices[..., 0]


alphabets = st.one_of(
    sizes.map(Alphabet.codes),
    level_lists.map(Alphabet.grid),
    st.lists(sizes | level_lists.map(Alphabet.grid), min_size=1, max_size=4).map(Alphabet.codebooks),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3).map(
        lambda parts: Alphabet.codebooks([part for part, _ in parts], [width for _, width in parts])
    ),
)


@given(data=st.data(), alphabet=alphabets)
def test_indices_come_back(data: st.DataObject, alphabet: Alphabet) -> None:
    """Any shape, sizes, stages and digits, with −1 among them; by their own counts and by those of others."""
    indices = data.draw(drawn(alphabet))
    stream = compress(indices, alphabet)
    back = decompress(stream)
    assert back.dtype == torch.int64
    assert torch.equal(back, indices)
    if sum(alphabet.channels) < 2**18:
        counts = Counts.of(data.draw(drawn(alphabet)), alphabet)
        assert torch.equal(decompress(compress(indices, alphabet, counts), counts), indices)


@given(
    size=st.sampled_from([1, 2, 7, BASE, BASE + 3]),
    shape=st.lists(st.integers(0, 4), max_size=3),
    stages=st.sampled_from([None, 3]),
    double=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_indices_come_back_by_probabilities(
    size: int, shape: list[int], stages: int | None, double: bool, seed: int
) -> None:
    """Also of codes whose probability is zero, and beside −1."""
    alphabet = Alphabet.codes(size) if stages is None else Alphabet.codebooks([size] * stages)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(-1, size, shape if stages is None else [*shape, stages], generator=generator)
    noise = torch.randn(*indices.shape, size, generator=generator)
    p = (noise * 200).double().softmax(-1) if double else (noise * 200).softmax(-1)
    stream = compress(indices, alphabet, Probabilities(p))
    assert torch.equal(decompress(stream, Probabilities(p.numpy())), indices)


@given(seed=st.integers(0, 2**31), size=st.sampled_from([1, 2, 5, 300, BASE + 1]))
def test_steps_give_back_what_was_put(seed: int, size: int) -> None:
    """A batch by a prior that looks at what came before: the decoder has no more than that."""
    generator = torch.Generator().manual_seed(seed)
    transition = (torch.randn(min(size, 50), size, generator=generator) * 3).softmax(-1)
    indices = torch.randint(0, size, (4, 5), generator=generator)

    def prior(before: Tensor) -> Tensor:
        return transition[before.sum(-1) % len(transition)]

    encoder = Encoder(indices.shape, size)
    for t in range(5):
        encoder.put(indices[:, t], prior(indices[:, :t]))
    decoder = Decoder(encoder.finish())
    assert decoder.shape == indices.shape
    assert decoder.codebook_size == size
    found = torch.zeros(decoder.shape, dtype=torch.int64)
    for t in range(5):
        found[:, t] = decoder.take(prior(found[:, :t]))
    assert torch.equal(found, indices)


# The rate.


def weighted_bits(indices: Tensor, counts: Tensor) -> float:
    """−Σ log₂ p of the indices, where p are these counts' shares."""
    chosen = code_counts(indices, len(counts))
    shares = counts.double() / counts.sum()
    return float(-(chosen * shares.log2()).where(chosen > 0, 0.0).sum())


DISTRIBUTIONS = {
    "uniform": lambda size: torch.ones(size),
    "zipf": lambda size: 1 / torch.arange(1.0, size + 1)[torch.randperm(size)],
    "one": lambda size: (torch.arange(size) == size // 2).float(),
    "nearly one": lambda size: 1e-3 / size + (torch.arange(size) == size // 2).float(),
}


@pytest.mark.parametrize(("name", "size"), list(product(DISTRIBUTIONS, [2, 1024, 20_000])))
@pytest.mark.parametrize("count", [100, 100_000])
def test_rate_is_the_entropy(name: str, size: int, count: int) -> None:
    """Counts that both sides have: within 0.1 % and 64 bytes. Their own: the tables beside it, as `table.py`
    bounds them, and never much more than log₂ K bits each."""
    indices = torch.multinomial(DISTRIBUTIONS[name](size), count, replacement=True)
    counts = Counts.of(indices, size)
    (table,) = counts.tables
    entropy = weighted_bits(indices, table) / 8
    stream = compress(indices, size, counts)
    assert entropy <= len(stream) <= 1.001 * entropy + 64
    used = table[table > 0].double()
    share = len(used) / size
    which = -size * (share * math.log2(share) + (1 - share) * math.log2(1 - share)) if share < 1 else 0.0
    steps = used.log2().floor().diff(prepend=torch.zeros(1)).abs()
    kept = (used.log2().floor() / 2).ceil()
    table_bytes = (which + float((steps + math.log2(3) + kept + 0.37).sum()) + math.log2(size) + 1) / 8
    own = compress(indices, size)
    assert len(own) <= 1.001 * min(entropy + table_bytes, count * math.log2(size) / 8) + 64
    assert torch.equal(decompress(own), indices)


@given(data=st.data(), size=st.integers(1, 400), seed=st.integers(0, 2**31))
def test_rate_by_counts_is_the_cross_entropy(data: st.DataObject, size: int, seed: int) -> None:
    """Counts of other indices, in which every code occurs."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, data.draw(st.sampled_from([2, 10, 10**6])), (size,), generator=generator)
    indices = torch.randint(0, size, (data.draw(st.integers(0, 2000)),), generator=generator)
    stream = compress(indices, size, Counts([counts]))
    assert len(stream) <= 1.001 * weighted_bits(indices, counts) / 8 + 64


@pytest.mark.parametrize("size", [2, 100, 6000])
def test_rate_by_probabilities_is_the_cross_entropy(size: int) -> None:
    """The bound of `coder.py`; and log₂ p is that of the probabilities as they are, not as they are rounded."""
    count = min(30_000, 2**22 // size)
    p = (torch.randn(count, size, dtype=torch.float64) * 2).softmax(-1)
    indices = torch.multinomial(p, 1)[:, 0]
    bits = float(-p[torch.arange(count), indices].log2().sum())
    stream = compress(indices, size, Probabilities(p))
    assert bits / 8 - 1 <= len(stream) <= 1.001 * bits / 8 + 64


def test_digits_have_a_distribution_each() -> None:
    """Of 2⁶⁰ codes, channels that hardly move cost next to nothing."""
    digits = torch.stack([torch.randint(0, 8, (50_000,)), *[(torch.rand(50_000) < 0.01).long()] * 19])
    weights = torch.tensor([8**channel for channel in range(20)])
    indices = (digits * weights[:, None]).sum(0)
    alphabet = Alphabet.grid([8] * 20)
    counts = Counts.of(indices, alphabet)
    assert [table.tolist() for table in counts.tables] == [
        torch.bincount(channel, minlength=8).tolist() for channel in digits
    ]
    entropy = sum(weighted_bits(channel, table) for channel, table in zip(digits, counts.tables, strict=True)) / 8
    assert entropy <= len(compress(indices, alphabet, counts)) <= 1.001 * entropy + 64
    assert torch.equal(decompress(compress(indices, alphabet)), indices)


def test_stages_have_a_distribution_each() -> None:
    indices = torch.stack([torch.randint(0, 16, (50_000,)), torch.full((50_000,), 3)], -1)
    alphabet = Alphabet.codebooks([16, 16])
    assert 25_000 < len(compress(indices, alphabet)) < 1.001 * 25_000 + 64


def test_missing_indices_cost_the_entropy_of_where_they_stand() -> None:
    """−1 at random among 8 equal codes, for every model; the rest cost what they would alone."""
    indices = torch.randint(0, 8, (100_000,))
    missing = torch.rand(100_000) < 0.1
    indices[missing] = -1
    share = float(missing.double().mean())
    where = -100_000 * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    bits = where + 3 * 100_000 * (1 - share)
    p = torch.full((100_000, 8), 1 / 8)
    for model in (OwnCounts(), Counts.of(indices, 8), Probabilities(p)):
        assert len(compress(indices, 8, model)) <= 1.001 * bits / 8 + 64


# The pieces.


@given(data=st.data(), size=st.integers(1, BASE), seed=st.integers(0, 2**31))
def test_frequencies_keep_their_bound(data: st.DataObject, size: int, seed: int) -> None:
    """Σ f = 2²⁴, f ≥ 1, and f / 2²⁴ > p (1 − L/2²⁴), in whole numbers."""
    largest = data.draw(st.sampled_from([1, 2, 1000, 2**26]))
    weights = np.random.default_rng(seed).integers(0, largest, (3, size))
    found = frequencies(weights)
    assert (found.sum(-1) == 2**PRECISION).all()
    assert (found >= 1).all()
    for row, own in zip(found.tolist(), weights.tolist(), strict=True):
        total = sum(own)
        assert all(f * total > w * (2**PRECISION - size) for f, w in zip(row, own, strict=True) if w)


@given(size=st.integers(2, BASE), seed=st.integers(0, 2**31))
def test_constriction_takes_the_frequencies_as_they_are(size: int, seed: int) -> None:
    """Its stack coder writes symbol s into an empty state as the sum of the frequencies before it."""
    import constriction

    stream = constriction.stream
    rng = np.random.default_rng(seed)
    found = frequencies(rng.integers(0, 1000, size) ** 3)
    model = stream.model.Categorical((found - 1).astype(np.float32), perfect=False)
    before = np.concatenate([[0], found.cumsum()])
    for symbol in {0, size - 1, int(rng.integers(size))}:
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(symbol, model)
        assert coder.pos()[1] == before[symbol]


@given(seed=st.integers(0, 2**31), size=st.integers(1, 300), most=st.sampled_from([1, 5, 2**20, 2**30]))
def test_a_table_comes_back_and_is_near_the_counts(seed: int, size: int, most: int) -> None:
    """|n' − n| ≤ √n / 2, and 0 stays 0."""
    rng = np.random.default_rng(seed)
    counts = (most * rng.random(size) ** 8).astype(np.int64) * (rng.random(size) < 0.7)
    counts[rng.integers(size)] += 1
    rounded = round_counts(counts)
    assert (4 * (rounded - counts) ** 2 <= counts).all()
    writer = Writer()
    put_table(writer, rounded)
    assert np.array_equal(take_table(Reader(writer.finish()), size), rounded)


@given(values=st.lists(st.integers(0, 2**40), max_size=9), spare=st.integers(1, 10**6))
def test_whole_numbers_come_back(values: list[int], spare: int) -> None:
    size = max(values, default=0) + spare
    writer = Writer()
    writer.put_uniform(np.array(values, dtype=np.int64), size)
    assert Reader(writer.finish()).take_uniform(len(values), size).tolist() == values


def test_groups_keep_the_order_of_their_places() -> None:
    """It is the order of the stream: a sort that is not stable would make it depend on the machine."""
    symbols = np.random.default_rng(0).integers(0, 5, 10_000)
    for symbol, places in groups(symbols):
        assert np.array_equal(places, np.flatnonzero(symbols == symbol))


def test_stages_may_hold_stages() -> None:
    alphabet = Alphabet.codebooks([Alphabet.codebooks([9], [4]), 3])
    assert [(section.size, section.width) for section in alphabet.sections] == [(9, 4), (3, 1)]


def test_the_format_is_what_it_was() -> None:
    """Streams outlive versions of this library and of constriction: these bytes were written by version 1."""
    indices = torch.tensor([[3, 1, -1, 2], [0, 0, 0, 3]])
    assert compress(indices, 4).hex() == FIRST
    assert torch.equal(decompress(bytes.fromhex(FIRST)), indices)
    counts = Counts([torch.tensor([9, 3, 5, 2]), torch.arange(5000)])
    staged = torch.tensor([[1, 4999], [-1, 17], [3, -1]])
    stream = compress(staged, Alphabet.codebooks([4, 5000]), counts)
    assert stream.hex() == SECOND
    assert torch.equal(decompress(stream, counts), staged)


FIRST = "8951544301a3e88d7201020204000101010104baf0ed585e63b1cf"
SECOND = "895154430137f5210f020203020102010101040101018827de954f15316702a001a1273d"


# What a quantizer says of its codes.


QUANTIZERS = {
    "vq": lambda: VectorQuantizer(4, 37),
    "fsq": lambda: FSQ(4, [8, 5, 5]),
    "lfq": lambda: LFQ(4, 2**40),
    "residual": lambda: ResidualQuantizer(4, [VectorQuantizer(4, 16), FSQ(4, [7, 3]), VectorQuantizer(4, 9)]),
    "grouped": lambda: GroupedQuantizer(
        8, [ResidualQuantizer(4, [VectorQuantizer(4, 5)] * 2), VectorQuantizer(4, 6)]
    ),
    "multihead": lambda: quantizers.create("multihead", dim=4, codebook_size=8, num_heads=2),
    "qinco": lambda: quantizers.create("qinco", dim=4, codebook_size=8, num_quantizers=2, hidden_dim=8, blocks=1),
    "multiscale": lambda: MultiScaleQuantizer(
        4, [VectorQuantizer(4, 8), FSQ(4, [3, 3])], scales=[0.5, 1.0], axes=2
    ),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_of_a_quantizer_come_back(name: str) -> None:
    quantizer = QUANTIZERS[name]()
    x = torch.randn(2, 6, 6, quantizer.dim)
    mask = torch.rand(2, 6, 6) < 0.8
    indices = quantizer.encode(x, mask)
    assert (indices == -1).any()
    assert torch.equal(decompress(compress(indices, quantizer)), indices)
    counts = Counts.of(indices, quantizer)
    assert torch.equal(decompress(compress(indices, quantizer, counts), counts), indices)


def test_the_first_codebooks_of_a_residual_quantizer_come_back() -> None:
    quantizer = QUANTIZERS["residual"]()
    indices = quantizer.encode(torch.randn(50, 4), num_codebooks=2)
    assert Alphabet.of(quantizer, 2).channels == [16, 7, 3]
    assert torch.equal(decompress(compress(indices, quantizer)), indices)


def test_counts_of_batches_add() -> None:
    a, b = torch.randint(-1, 6, (2, 50))
    both = Counts.of(a, 6) + Counts.of(b, 6)
    assert torch.equal(both.tables[0], code_counts(torch.cat([a, b]), 6))


# Bytes that are not theirs.


def streams() -> Iterator[bytes]:
    """A few streams that decompress reads, short and of each part of the format."""
    yield compress(torch.tensor([3, 1, -1, 2, 0]), 4)
    yield compress(torch.randint(0, 5, (200,)) ** 2 // 4, 5000)
    yield compress(torch.randint(-1, 2**20, (3, 4)), Alphabet.grid([2**10, 2**10]))
    yield compress(torch.randint(0, 9, (0, 2)), Alphabet.codebooks([9, Alphabet.grid([3, 3])]))
    yield compress(torch.randint(0, 9, (7, 2)), Alphabet.codebooks([9, Alphabet.grid([3, 3])]))


def signed(body: bytes) -> bytes:
    """A body behind a prefix whose checksum is right."""
    prefix = compress(torch.tensor([0]), 1)[:5]
    return prefix + zlib.crc32(body).to_bytes(4, "little") + body


def reads(data: bytes) -> bool:
    """Whether decompress takes it; what it finds otherwise is a BitstreamError, and nothing else."""
    try:
        decompress(data, max_elements=2**16)
    except BitstreamError:
        return False
    return True


def test_every_changed_byte_is_an_error() -> None:
    for stream in streams():
        for place in range(len(stream)):
            for change in (1, 128, 255):
                changed = bytearray(stream)
                changed[place] ^= change
                with pytest.raises(BitstreamError):
                    decompress(bytes(changed))


def test_every_truncation_and_every_surplus_is_an_error() -> None:
    for stream in streams():
        for end in range(len(stream)):
            with pytest.raises(BitstreamError, match=r"truncated|header"):
                decompress(stream[:end])
        for surplus in (b"\0", b"\0\0\0\0", stream):
            with pytest.raises(BitstreamError):
                decompress(stream + surplus)


@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        decompress(data)
    assert not reads(signed(data)) or len(data) >= 10
    with pytest.raises(BitstreamError):
        Decoder(data)


def attack(seed: int) -> None:
    """A stream whose header and payload were changed, and whose checksum was made right again."""
    rng = np.random.default_rng(seed)
    for stream in streams():
        body = bytearray(stream[PREFIX:])
        for _ in range(rng.integers(1, 4)):
            place = rng.integers(len(body)) if rng.random() < 0.5 else rng.integers(min(12, len(body)))
            body[place] = rng.integers(256)
        if rng.random() < 0.2:
            del body[rng.integers(len(body)) :]
        reads(signed(bytes(body)))


@examples(40)
@given(seed=st.integers(0, 2**32))
def test_hostile_bytes_end_in_an_error_or_in_indices(seed: int) -> None:
    attack(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_more_hostile_bytes_end_in_an_error_or_in_indices(part: int) -> None:
    for seed in range(2000):
        attack(2000 * part + seed)


def header(shape: tuple[int, ...], alphabet: Alphabet, model: int = 1) -> bytes:
    return write_stream(Header(model, shape, alphabet, 0), b"")


@pytest.mark.parametrize(
    "stream",
    [
        header((2**62,), Alphabet.codes(1)),
        header((0, 2**62, 2**62), Alphabet.codes(2)),
        header((1,), Alphabet.grid([2**24] * 2)),
        header((0,), Alphabet.codes(2**24)),
        header((1, 10**5), Alphabet.codebooks([1] * 10**5)),
        header((1, 2**62), Alphabet.codebooks([3], [2**62])),
    ],
    ids=["one code", "no elements", "levels", "table", "codebooks", "width"],
)
def test_a_small_stream_cannot_ask_for_much(stream: bytes) -> None:
    assert len(stream) < 60
    with pytest.raises(BitstreamError, match="max_elements"):
        decompress(stream, max_elements=2**22)


def test_a_larger_limit_reads_what_is_large() -> None:
    stream = compress(torch.zeros(10**5, dtype=torch.int64), 3)
    assert len(stream) < 64
    with pytest.raises(BitstreamError, match="max_elements=1000:"):
        decompress(stream, max_elements=1000)
    assert len(decompress(stream, max_elements=2**18)) == 10**5


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"\x01\x41" + b"\x01" * 90, "65 axes"),
        (b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x01" * 30, "63 bits"),
        (b"\x01\x01\x03\x00\x01\x01\x01\x01", "ends within"),
        (b"\x01\x01\x03\x00\x01\x01\x01\x01\x03\0\0\0\0\0", "expected a multiple of 4"),
        (b"\x01\x01\x03\x00\x01\x01\x01\x00\0\0\0\0", "levels is empty"),
        (b"\x01\x01\x03\x00\x01\x01\x01\x01\x00\0\0\0\0", "a level is 0"),
        (b"\x01\x01\x03\x00\x01\x01\x00\x01\x03\0\0\0\0", "expected at least one"),
        (b"\x01\x01\x03\x00\x00\0\0\0\0", "expected at least one"),
        (b"\x01\x01\x03\x00\x01\x02\x01\x01\x03\0\0\0\0", "exactly one of width 1"),
        (b"\x01\x01\x03\x01\x01\x02\x01\x01\x03\0\0\0\0", "2 codebooks"),
        (b"\x09\x01\x03\x00\x01\x01\x01\x01\x03\0\0\0\0", "number 9"),
    ],
)
def test_headers_that_contradict_themselves_are_named(body: bytes, problem: str) -> None:
    with pytest.raises(BitstreamError, match=problem):
        decompress(signed(body))


def test_what_is_wrong_with_bytes_is_said() -> None:
    stream = compress(torch.tensor([1, 2]), 4)
    for data, problem in [
        (b"", "truncated"),
        (stream[:3], "truncated"),
        (b"PK\3\4" + stream, "begins with b'PK"),
        (stream[:4] + b"\2" + stream[5:], "version 2 of the format, expected 1"),
        (stream[:-1], "truncated or corrupted"),
    ]:
        with pytest.raises(BitstreamError, match=problem):
            decompress(data)
    with pytest.raises(TypeError, match="str, expected bytes"):
        decompress("text")  # type: ignore[arg-type]
    for kind in (bytearray, memoryview):
        assert decompress(kind(stream)).tolist() == [1, 2]


def test_another_model_is_found_out() -> None:
    """Never other indices than were written."""
    indices = torch.randint(0, 50, (300,))
    p = torch.rand(300, 50).softmax(-1)
    counts, steps = Counts.of(indices, 50), Encoder([300], 50)
    steps.put(indices, p)
    by_counts, by_p = compress(indices, 50, counts), compress(indices, 50, Probabilities(p))
    with pytest.raises(BitstreamError, match=r"written with Counts, and is read with OwnCounts"):
        decompress(by_counts)
    with pytest.raises(BitstreamError, match=r"written with Encoder, which Decoder reads"):
        decompress(steps.finish())
    with pytest.raises(BitstreamError, match=r"written with Counts, not by an Encoder"):
        Decoder(by_counts)
    with pytest.raises(BitstreamError, match="another model"):
        decompress(by_counts, counts + Counts([torch.arange(50)]))
    with pytest.raises(BitstreamError, match="another model"):
        decompress(by_p, Probabilities(p.flip(0)))
    decoder = Decoder(steps.finish())
    decoder.take(p[:200].flip(1))
    with pytest.raises(BitstreamError, match="another model"):
        decoder.take(p[200:])
    with pytest.raises(ValueError, match=r"for \[51\] codes, expected counts for \[50\]"):
        decompress(by_counts, Counts([torch.ones(51, dtype=torch.int64)]))


def test_bytes_no_coder_writes_are_found_out() -> None:
    """constriction's own error, for a state outside of its range, becomes ours."""
    rows = torch.full((50, 1000), 1e-3)
    raised = 0
    for seed in range(300):
        payload = np.random.default_rng(seed).integers(2**32 - 2**8, 2**32, 4).astype("<u4").tobytes()
        decoder = Decoder(write_stream(Header(STEPS, (50,), Alphabet.codes(1000), 0), payload))
        with pytest.raises(BitstreamError):
            decoder.take(rows)
        raised += 1
    assert raised == 300


def written(*parts: tuple[list[int], np.ndarray]) -> Reader:
    """A reader of symbols that were each written with weights of their own."""
    writer = Writer()
    for symbols, weights in parts:
        writer.put(np.array(symbols), weights)
    return Reader(writer.finish())


def test_digits_beyond_the_alphabet_are_found_out() -> None:
    """Two digits to the base 4,096 can say more than 5,000."""
    ones = np.ones(5000, dtype=np.int64)
    high, low = ([1], np.array([BASE, 5000 - BASE])), ([2000], (np.arange(BASE) < 5000 - BASE).astype(np.int64))
    with pytest.raises(BitstreamError, match="another model"):
        written(high, low).take(1, ones)
    with pytest.raises(BitstreamError, match="another model"):
        written(high, low).take_rows(ones[None])
    with pytest.raises(BitstreamError, match="another model"):
        written(([1], ones[:2]), ([2000], ones[:BASE])).take_uniform(1, 5000)


def test_counts_beyond_the_range_of_counts_are_found_out() -> None:
    writer = Writer()
    put_table(writer, np.array([2**37 + 2**17] * 2))
    with pytest.raises(BitstreamError, match="beyond the range"):
        take_table(Reader(writer.finish()), 2)


# Wrong arguments.


def test_indices_that_do_not_fit_are_named() -> None:
    good = torch.tensor([[0, 1]])
    with pytest.raises(TypeError, match="a list, expected a tensor"):
        compress([1, 2], 4)  # type: ignore[arg-type]
    for dtype in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"{dtype}, expected an integer"):
            compress(good.to(dtype), 4)
    for bad in (4, -2):
        with pytest.raises(IndexError, match=r"expected −1 to 3"):
            compress(torch.tensor([0, bad]), 4)
    with pytest.raises(IndexError, match=r"from 0 to 5, expected −1 to 4"):
        compress(torch.tensor([[9, 0], [0, 5]]), Alphabet.codebooks([10, 5]))
    with pytest.raises(ValueError, match="expected 3 codebooks"):
        compress(good, Alphabet.codebooks([4] * 3))
    with pytest.raises(ValueError, match="expected 1 codebooks"):
        compress(torch.tensor(0), Alphabet.codebooks([4]))
    with pytest.raises(ValueError, match="65 axes"):
        compress(torch.zeros([1] * 64, dtype=torch.int64)[None], 4)
    with pytest.raises(TypeError, match="expected an Alphabet, a Quantizer or K"):
        compress(good, "vq")  # type: ignore[arg-type]


def test_alphabets_that_cannot_be_are_named() -> None:
    for make, problem in [
        (lambda: Alphabet.codes(0), "a level is 0"),
        (lambda: Alphabet.codes(2**24 + 1), r"at most 2\*\*24"),
        (lambda: Alphabet.grid([]), "empty"),
        (lambda: Alphabet.grid([2**16] * 4), r"more than 2\*\*63"),
        (lambda: Alphabet.codebooks([]), "at least one"),
        (lambda: Alphabet.codebooks([3, 4], [1]), "1 widths for 2 alphabets"),
        (lambda: Alphabet.codebooks([3], [0]), "a width is 0"),
        (lambda: Alphabet.of(Identity(4)), "has no codes"),
        (lambda: Alphabet.of(QUANTIZERS["multiscale"]()), "columns is None"),
        (lambda: Alphabet.of(QUANTIZERS["residual"](), 4), "4 columns"),
    ]:
        with pytest.raises(ValueError, match=problem):
            make()


def test_models_that_do_not_fit_are_named() -> None:
    indices, p = torch.tensor([0, 1, 2]), torch.full((3, 4), 0.25)
    with pytest.raises(TypeError, match=r"dtype .*float32, expected an integer"):
        Counts([torch.ones(4)])
    for table in (torch.tensor([1, -1]), torch.tensor([2**38, 1])):
        with pytest.raises(ValueError, match="sum is at most"):
            Counts([table])
    for table in (torch.ones(2, 2).long(), torch.ones(0).long()):
        with pytest.raises(ValueError, match="a table of counts has shape"):
            Counts([table])
    with pytest.raises(ValueError, match="expected the same"):
        Counts.of(indices, 4) + Counts.of(indices, 5)
    with pytest.raises(ValueError, match=r"for \[5\] codes, expected counts for \[4\]"):
        compress(indices, 4, Counts.of(indices, 5))
    with pytest.raises(TypeError, match=r"dtype .*int64, expected a floating"):
        Probabilities(p.long())
    with pytest.raises(ValueError, match=r"shape \(3, 4\), expected \(3, 5\)"):
        compress(indices, 5, Probabilities(p))
    with pytest.raises(ValueError, match=r"have \[3, 4\] codes, expected one size"):
        compress(indices[:2], Alphabet.codebooks([3, 4]), Probabilities(p[:2]))
    for wrong in (p * 2, p - 0.5, p * torch.nan, p * torch.inf, p.new_tensor([1.5, -0.5, 0, 0]).expand(3, 4)):
        with pytest.raises(ValueError, match="expected distributions"):
            compress(indices, 4, Probabilities(wrong))


def test_steps_that_do_not_fit_are_named() -> None:
    p = torch.full((3, 4), 0.25)
    with pytest.raises(ValueError, match="a size of the shape is -1"):
        Encoder([-1], 4)
    encoder = Encoder([2, 2], 4)
    with pytest.raises(ValueError, match="4 indices of shape"):
        encoder.finish()
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(3,\)"):
        encoder.put(torch.tensor([0, 1]), p)
    with pytest.raises(IndexError, match="leave such positions out"):
        encoder.put(torch.tensor([0, -1, 1]), p)
    with pytest.raises(IndexError, match="expected −1 to 3"):
        encoder.put(torch.tensor([0, 4, 1]), p)
    encoder.put(torch.tensor([0, 1, 1]), p)
    with pytest.raises(ValueError, match=r"\[n, 4\], n at most 1"):
        encoder.put(torch.tensor([0, 1, 1]), p)
    encoder.put(torch.tensor([3]), p[:1])
    decoder = Decoder(encoder.finish())
    for wrong in (p[:, :3], p[0], torch.full((5, 4), 0.25)):
        with pytest.raises(ValueError, match=r"\[n, 4\], n at most 4"):
            decoder.take(wrong)
    assert decoder.take(p).tolist() == [0, 1, 1]
    assert decoder.take(p[:1]).tolist() == [3]


def test_without_constriction_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = compress(torch.tensor([1]), 4)
    monkeypatch.setitem(sys.modules, "constriction", None)
    for use in (lambda: compress(torch.tensor([1]), 4), lambda: decompress(stream), lambda: Encoder([1], 4)):
        with pytest.raises(ImportError, match=r"pip install quantizers-torch\[codec\]"):
            use()
    assert read_stream(stream, 2**20)[0].shape == (1,)
