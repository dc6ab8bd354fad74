"""Shells of lattices as codebooks: the minimal vectors of E8 and of the Leech lattice.

    import quantizers
    from quantizers.codebooks.lattices import leech_shell

    quantizer = quantizers.create("vq", 24, codebook=leech_shell(), frozen=True, distance="cosine")

Conway, Sloane: Sphere Packings, Lattices and Groups, chapters 3, 4 and 11. In 8 and 24 dimensions these are the
largest sets of points on the sphere of which no two are closer than 60 degrees. They are spread evenly: each is a
spherical design (of strength 7 and 11), so that sums over it of polynomials up to that degree are integrals over
the sphere.
"""

import functools
import itertools

import torch
from torch import Tensor

GOLAY_POLYNOMIAL = (
    0b110001110101  # x¹¹ + x¹⁰ + x⁶ + x⁵ + x⁴ + x² + 1, which generates the cyclic code of length 23
)


def leech_shell() -> Tensor:
    """The 196,560 minimal vectors of the Leech lattice, of norm 1: float32 [196560, 24].

        >>> leech_shell().shape
        torch.Size([196560, 24])

    Returns: `leech_points` / √32. Inner products of two of them are in {±1, ±1/2, ±1/4, 0}, up to rounding.
    """
    return _unit(leech_points())


def e8_shell() -> Tensor:
    """The 240 minimal vectors (roots) of E8, of norm 1: float32 [240, 8].

        >>> e8_shell().shape
        torch.Size([240, 8])

    Returns: `e8_points` / √8. Inner products of two of them are in {±1, ±1/2, 0}, up to rounding.
    """
    return _unit(e8_points())


def golay_code() -> Tensor:
    """The extended binary Golay code: its 4096 words of 24 bits, int8 [4096, 24], in the order of their numbers.

    Linear, self-dual and doubly even: weights 0 (once), 8 (759 octads), 12 (2576), 16 (759) and 24 (once).

        >>> golay_code().sum(1, dtype=torch.int64).bincount(minlength=25)[[0, 8, 12, 16, 24]].tolist()
        [1, 759, 2576, 759, 1]
    """
    rows = torch.tensor([[GOLAY_POLYNOMIAL << shift >> bit & 1 for bit in range(23)] for shift in range(12)])
    rows = torch.cat([rows, rows.sum(1, keepdim=True) % 2], dim=1)
    words = _signs_of(12).lt(0).long() @ rows % 2
    return words.to(torch.int8)


@functools.cache
def leech_points() -> Tensor:
    """The minimal vectors of the Leech lattice times √8, so that they are integers: int8 [196560, 24], on the CPU.

    All have the squared norm 32. In this order, with the words c of the Golay code:

    - 1104 of the shape (±4², 0²²), at any two positions;
    - 97,152 of the shape (±2⁸, 0¹⁶), at the positions of an octad, with an even number of minus signs;
    - 98,304 of the shape (∓3, ±1²³): −3 at one position and 1 at the others, negated where c is 1.
    """
    with torch.device("cpu"):
        words = golay_code()
        octads = words[words.sum(1, dtype=torch.int64) == 8]
        places = octads.nonzero()[:, 1].view(-1, 8)  # [759, 8]
        even = _even(_signs_of(8)).to(torch.int8)  # [128, 8]
        twos = torch.zeros(len(places), len(even), 24, dtype=torch.int8)
        index = places[:, None].expand(-1, len(even), -1)
        twos.scatter_(2, index, (2 * even).expand(len(places), -1, -1))
        ones = torch.ones(24, 24, dtype=torch.int8) - 4 * torch.eye(24, dtype=torch.int8)
        threes = (1 - 2 * words)[:, None] * ones  # [4096, 24, 24]
        return torch.cat([_pairs(24, 4), twos.view(-1, 24), threes.view(-1, 24)])


@functools.cache
def e8_points() -> Tensor:
    """The roots of E8 times 2, so that they are integers: int8 [240, 8], on the CPU, all of the squared norm 8.

    112 of the shape (±2², 0⁶), and 128 of the shape (±1⁸) with an even number of minus signs.
    """
    with torch.device("cpu"):
        return torch.cat([_pairs(8, 2), _even(_signs_of(8)).to(torch.int8)])


def _pairs(channels: int, size: int) -> Tensor:
    """All vectors of `channels` with ±size at two positions and 0 elsewhere, int8."""
    found = []
    for first, second in itertools.combinations(range(channels), 2):
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            vector = [0] * channels
            vector[first], vector[second] = size * signs[0], size * signs[1]
            found.append(vector)
    return torch.tensor(found, dtype=torch.int8)


def _signs_of(bits: int) -> Tensor:
    """All vectors of ±1, [2^bits, bits]: row n is −1 where n has a one."""
    return 1 - 2 * (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1)


def _even(signs: Tensor) -> Tensor:
    """The rows of ±1 with an even number of −1."""
    return signs[signs.prod(1) > 0]


def _unit(points: Tensor) -> Tensor:
    """Points of equal norm, divided by it in float64."""
    wide = points.double()
    unit: Tensor = wide / wide[0].norm()
    return unit.float()
