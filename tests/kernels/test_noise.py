"""Philox against its published answers, and the noise made of it against the Gumbel distribution."""

import math

import pytest
import torch

from quantizers.kernels.common.noise import WORD, gumbel_noise, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123, the authors' library, is tested with
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([WORD] * 4, [WORD] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox([torch.tensor(c) for c in counter], [torch.tensor(k) for k in key])
    assert [int(word) for word in words] == expected


def test_gumbel_noise_is_gumbel() -> None:
    """Mean γ = 0.5772, variance π²/6; n samples, so within five standard errors."""
    noise = gumbel_noise(torch.tensor(-3), torch.arange(1000), 200)
    n, variance = noise.numel(), math.pi**2 / 6
    assert abs(noise.mean() - 0.5772156649) < 5 * math.sqrt(variance / n)
    fourth = (3 + 12 / 5) * variance**2  # kurtosis 3 + 12/5
    assert abs(noise.var() - variance) < 5 * math.sqrt((fourth - variance**2) / n)


def test_rows_codes_and_seeds_have_noise_of_their_own() -> None:
    rows = torch.arange(50)
    both = torch.cat([gumbel_noise(torch.tensor(seed), rows, 30) for seed in (7, 2**40 + 7)])
    # Of 2²³ values, 3000 draws share one in half the cases; they do not share 10.
    assert both.unique().numel() > both.numel() - 10


def test_a_rows_noise_does_not_depend_on_its_batch() -> None:
    seed = torch.tensor(9)
    assert torch.equal(gumbel_noise(seed, torch.arange(20), 11)[13:], gumbel_noise(seed, torch.arange(13, 20), 11))
