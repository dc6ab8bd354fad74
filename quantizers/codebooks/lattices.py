"""Shells of lattices as codebooks: the minimal vectors of E8, of the Barnes–Wall and of the Leech lattice.

    import quantizers
    from quantizers.codebooks.lattices import leech_shell

    quantizer = quantizers.create("vq", 24, codebook=leech_shell(), frozen=True, distance="cosine")

Conway, Sloane: Sphere Packings, Lattices and Groups, chapters 3, 4 and 11. No two points of a shell are closer
than 60 degrees. In 8 and 24 dimensions no larger set of such points exists, and in 16 dimensions none is known.
The points are spread evenly: each shell is a spherical design (of strength 7, 7 and 11 for 8, 16 and 24
dimensions), so that the mean over it of a polynomial up to that degree is the mean over the sphere.
"""

import itertools

import torch
from torch import Tensor

from quantizers.kernels.common.wide import narrowed, wide

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


def barnes_wall_shell() -> Tensor:
    """The 4320 minimal vectors of the Barnes–Wall lattice in 16 dimensions, of norm 1: float32 [4320, 16].

        >>> barnes_wall_shell().shape
        torch.Size([4320, 16])

    Returns: `barnes_wall_points` / √8. Inner products of two of them are in {±1, ±1/2, ±1/4, 0}, up to rounding.
    """
    return _unit(barnes_wall_points())


def golay_code() -> Tensor:
    """The extended binary Golay code: its 4096 words of 24 bits, int8 [4096, 24], in the order of their numbers.

    Linear, self-dual and doubly even: weights 0 (once), 8 (759 octads), 12 (2576), 16 (759) and 24 (once).

        >>> golay_code().sum(1, dtype=torch.int64).bincount(minlength=25)[[0, 8, 12, 16, 24]].tolist()
        [1, 759, 2576, 759, 1]
    """
    rows = torch.tensor([[GOLAY_POLYNOMIAL << shift >> bit & 1 for bit in range(23)] for shift in range(12)])
    rows = torch.cat([rows, rows.sum(1, keepdim=True) % 2], dim=1)
    return _words(rows)


def reed_muller_code() -> Tensor:
    """The Reed–Muller code RM(1, 4): its 32 words of 16 bits, int8 [32, 16], in the order of their numbers.

    A word lists the values of an affine function on the 16 points of four bits. Weights 0 (once), 8 (30) and 16.

        >>> reed_muller_code().sum(1, dtype=torch.int64).bincount()[[0, 8, 16]].tolist()
        [1, 30, 1]
    """
    points = torch.arange(16)
    return _words(torch.stack([*(points >> bit & 1 for bit in range(4)), torch.ones_like(points)]))


def leech_points() -> Tensor:
    """The minimal vectors of the Leech lattice times √8, so that they are integers: int8 [196560, 24], on the CPU.

    All have the squared norm 32. In this order, with the words c of the Golay code:

    - 1104 of the shape (±4², 0²²), at any two positions;
    - 97,152 of the shape (±2⁸, 0¹⁶), at the positions of an octad, with an even number of minus signs;
    - 98,304 of the shape (∓3, ±1²³): −3 at one position and 1 at the others, negated where c is 1.
    """
    with torch.device("cpu"):
        words = golay_code()
        ones = torch.ones(24, 24, dtype=torch.int8) - 4 * torch.eye(24, dtype=torch.int8)
        threes = (1 - 2 * words)[:, None] * ones  # [4096, 24, 24]
        return torch.cat([_pairs(24, 4), _octads(words, 759, 2), threes.view(-1, 24)])


def barnes_wall_points() -> Tensor:
    """The minimal vectors of the Barnes–Wall lattice times √2, integers: int8 [4320, 16], on the CPU.

    All have the squared norm 8. In this order:

    - 480 of the shape (±2², 0¹⁴), at any two positions;
    - 3840 of the shape (±1⁸, 0⁸), at the positions of a word of weight 8 of RM(1, 4), with an even number of minus
      signs.
    """
    with torch.device("cpu"):
        return torch.cat([_pairs(16, 2), _octads(reed_muller_code(), 30, 1)])


def e8_points() -> Tensor:
    """The roots of E8 times 2, so that they are integers: int8 [240, 8], on the CPU, all of the squared norm 8.

    112 of the shape (±2², 0⁶), and 128 of the shape (±1⁸) with an even number of minus signs.
    """
    with torch.device("cpu"):
        return torch.cat([_pairs(8, 2), _even_signs(8)])


def _pairs(channels: int, size: int) -> Tensor:
    """All vectors of `channels` with ±size at two positions and 0 elsewhere, int8."""
    found = []
    for first, second in itertools.combinations(range(channels), 2):
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            vector = [0] * channels
            vector[first], vector[second] = size * signs[0], size * signs[1]
            found.append(vector)
    return torch.tensor(found, dtype=torch.int8)


def _octads(words: Tensor, count: int, size: int) -> Tensor:
    """All vectors with ±size at the ones of a word of weight 8, 0 elsewhere, and an even number of minus signs.

    Args: words: [number, D]; `count` of them have weight 8. No shape depends on a value, for fake tensors.

    Returns: int8 [count · 128, D].
    """
    others = words.sum(1, dtype=torch.int64) != 8
    octads = words[others.long().argsort(stable=True)[:count]]
    places = octads.argsort(dim=1, descending=True, stable=True)[:, :8]  # [count, 8]
    signs = size * _even_signs(8)  # [128, 8]
    vectors = torch.zeros(count, len(signs), words.shape[1], dtype=torch.int8)
    index = places[:, None].expand(-1, len(signs), -1)
    return vectors.scatter_(2, index, signs.expand(count, -1, -1)).view(-1, words.shape[1])


def _words(rows: Tensor) -> Tensor:
    """All words of the code that these rows generate over {0, 1}, int8."""
    return (_signs_of(len(rows)).lt(0).long() @ rows % 2).to(torch.int8)


def _signs_of(bits: int) -> Tensor:
    """All vectors of ±1, [2^bits, bits]: row n is −1 where n has a one."""
    return 1 - 2 * (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1)


def _even_signs(bits: int) -> Tensor:
    """All vectors of ±1 with an even number of −1, int8 [2^(bits − 1), bits]."""
    others = _signs_of(bits - 1)
    return torch.cat([others.prod(1, keepdim=True), others], dim=1).to(torch.int8)


def _unit(points: Tensor) -> Tensor:
    """Points of equal norm, divided by it in float64."""
    unit = wide(points)
    return narrowed(unit / unit[0].norm(), torch.float32, points.device)
