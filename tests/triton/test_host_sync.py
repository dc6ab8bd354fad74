"""9: the launchers of the Triton kernels read no value back, so that they can be captured in a CUDA graph."""

import pytest
import torch
from torch import Tensor

from quantizers.kernels.averages.triton import average_codes_
from quantizers.kernels.highest.triton import highest_score
from quantizers.kernels.k_nearest.triton import k_nearest_codes
from quantizers.kernels.levels import triton as levels
from quantizers.kernels.nearest.triton import lookup_gradient, nearest
from quantizers.kernels.rotation import triton as rotation
from quantizers.kernels.rows import triton as rows
from quantizers.kernels.soft.triton import backward as soft_backward
from quantizers.kernels.soft.triton import forward as soft
from quantizers.kernels.sums import triton as sums
from tests.synchronisation import NoSynchronisation, no_reading
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape).to(device())


def test_no_launcher_reads_back() -> None:
    x, codebook, gradient = draw(1, 20, 4), draw(1, 9, 4), draw(1, 20, 4)
    indices = torch.randint(-1, 9, (1, 20)).to(device())
    sizes, embedding_sum = draw(1, 9).abs(), draw(1, 9, 4)
    level_counts, temperature = torch.tensor([5, 4, 3, 8]).to(device()), torch.ones(()).to(device())
    seed, bias = torch.tensor(3).to(device()), draw(9)
    with NoSynchronisation():
        nearest.nearest_code(x, codebook)
        found, codes, _ = nearest.nearest_lookup(x, codebook)
        lookup_gradient.lookup_vector_gradient(gradient[..., 0], x, codes, found, 0.25)
        lookup_gradient.lookup_codebook_gradient(gradient, gradient[..., 0], x, codes, found, 1.0, 9)
        k_nearest_codes(x, codebook, 3)
        highest_score(x[0], codebook[0], bias)
        sums.code_sums(x, indices, 9)
        sums.ema_code_sums(x, indices, sizes, embedding_sum, 0.9)
        state = codebook[0].clone(), sizes[0], embedding_sum[0], codebook[0].clone()
        average_codes_(x[0], indices[0], *state, 0.9, 1e-5, True)
        rotation.rotate_grad(gradient, x, codes)
        levels.round_levels(x[0], level_counts, 1.0)
        levels.round_levels_backward(gradient[0], x[0], level_counts, 1.0)
        _, valid = rows.finite_rows(x[0], None)
        rows.marked_rows(codes[0], found[0], valid)
        rows.rows_gradient(gradient[0], valid, torch.float32)
        means, divisor = rows.mean_loss(gradient[..., 0], valid, 4)
        rows.mean_loss_gradient(means, valid, divisor)
        inputs = (x[0], codebook[0], bias, codebook[0], temperature, seed)
        value, _, divergence, log_sums = soft.soft_codes(*inputs)
        soft_backward.soft_codes_backward(gradient[0], gradient[0, :, 0], *inputs, value, divergence, log_sums)


@torch.library.custom_op("quantizers_tests::reads", mutates_args=())
def _reads(x: Tensor) -> Tensor:
    return x.clone() if x.sum() else x + 1


def test_a_value_that_is_read_inside_an_operation_is_found() -> None:
    with pytest.raises(AssertionError, match="__bool__ makes the host wait"), no_reading():
        _reads(torch.ones(3))
