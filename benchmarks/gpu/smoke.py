"""Every kernel once, on small tensors, against the reference in float64 on the same device.

A part is one operation with one kind of input, so that each compiles in a process of its own. The reference
receives the same values in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import quantizers
from benchmarks.gpu.implementations import (
    code_sums,
    ema_code_sums,
    highest_score,
    k_nearest_codes,
    nearest_code,
    nearest_lookup,
    pruned,
    rotate_grad,
    round_levels,
    soft_codes,
    use_implementation,
)
from benchmarks.gpu.stages import Numbers, Phase, Place

# A kernel that computes in float32's precision is off by less than one rounding to tf32, and one that lost this
# precision by more. The bound on every rounding is the business of tests/triton.
WRONG = 2.0**-11
ROUNDED = 2.0**-10  # of a product of operands that are rounded to 11 bits: two relative roundings

Run = Callable[..., Sequence[Tensor]]


class Mismatch(Exception):
    """A kernel ran and its result is wrong."""


@dataclass(frozen=True)
class Case:
    """One operation on one kind of input.

    draw       tensors on the CPU; floating ones may be cast to another dtype
    run        (*tensors) → results; the same function is run by Triton and by the reference
    precision  torch's setting for float32 products. Below "highest", results are indices of nearest codes, which
               may be codes that are only nearly the nearest
    dtype      of the floating inputs that Triton receives
    """

    draw: Callable[[], list[Tensor]]
    run: Run
    precision: str = "highest"
    dtype: torch.dtype = torch.float32


def _draw(*shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randn(shape) for shape in shapes]


def _search(n: int, k: int, d: int, heads: int = 1) -> Callable[[], list[Tensor]]:
    return _draw((heads, n, d), (heads, k, d))


def _indices(x: Tensor, codebook: Tensor) -> Sequence[Tensor]:
    return nearest_code(x, codebook)[:1]


def _pruned(x: Tensor, codebook: Tensor) -> Sequence[Tensor]:
    with pruned(x, codebook):
        return _indices(x, codebook)


def _lookup(x: Tensor, codebook: Tensor) -> Sequence[Tensor]:
    """Value, index, loss and all gradients of a VQ step."""
    x, codebook = x.requires_grad_(), codebook.requires_grad_()
    codes, indices, loss = nearest_lookup(x, codebook, 0.25, 1.0)
    gradients = torch.autograd.grad(codes.sin().sum() + loss.sum(), (x, codebook))
    return indices, codes.detach(), loss.detach(), *gradients


def _draw_twins() -> list[Tensor]:
    """Each code stands twice: only exact distances and the rule for ties tell which is nearer."""
    codebook = torch.randn(2, 30, 20)
    return [torch.randn(2, 70, 20), torch.cat((codebook, codebook), 1)]


def _k_nearest(x: Tensor, codebook: Tensor) -> Sequence[Tensor]:
    return k_nearest_codes(x, codebook, 5)


def _draw_sums() -> list[Tensor]:
    """A code with half of the vectors, codes without any, vectors that do not count."""
    indices = torch.randint(-1, 9, (2, 400))
    indices[0, :200] = 1
    return [torch.randn(2, 400, 20), indices, torch.rand(2, 12), torch.randn(2, 12, 20)]


def _sums(x: Tensor, indices: Tensor, sizes: Tensor, sums: Tensor) -> Sequence[Tensor]:
    return *code_sums(x, indices, 12), *ema_code_sums(x, indices, sizes, sums, 0.9)


def _draw_rotation() -> list[Tensor]:
    gradient, x, quantized = (torch.randn(200, 64) for _ in range(3))
    quantized[5], x[6] = -x[5], 0
    return [gradient, x, quantized]


def _rotation(*tensors: Tensor) -> Sequence[Tensor]:
    return (rotate_grad(*tensors),)


def _draw_levels() -> list[Tensor]:
    """Values that no rounding error takes across the middle between two levels."""
    levels = torch.tensor([8, 5, 5, 2])
    z = torch.randn(4000, len(levels), dtype=torch.float64)
    with use_implementation("reference"):
        index = round_levels(z, levels.tolist())[1]
        moved = [round_levels(z + shift, levels.tolist())[1] for shift in (-1e-4, 1e-4)]
    safe = (moved[0] == index) & (moved[1] == index)
    return [z[safe][:500].float()]


def _levels(z: Tensor) -> Sequence[Tensor]:
    z = z.requires_grad_()
    codes, indices = round_levels(z, [8, 5, 5, 2])
    return indices, codes.detach(), *torch.autograd.grad(codes.sin().sum(), z)


def _soft(noisy: bool) -> Run:
    def run(x: Tensor, keys: Tensor, bias: Tensor, values: Tensor) -> Sequence[Tensor]:
        inputs = [tensor.requires_grad_() for tensor in (x, keys, bias, values)]
        seed = torch.tensor(2**62 - 12345, device=x.device) if noisy else None
        value, indices, divergence = soft_codes(*inputs, torch.tensor(0.7, device=x.device, dtype=x.dtype), seed)
        gradients = torch.autograd.grad(value.sin().sum() + divergence.sum(), inputs)
        return indices, value.detach(), divergence.detach(), *gradients

    return run


def _draw_soft() -> list[Tensor]:
    return [torch.randn(70, 20), torch.randn(40, 20) / 20**0.5, torch.randn(40), torch.randn(40, 33)]


def _highest(x: Tensor, keys: Tensor, bias: Tensor) -> Sequence[Tensor]:
    return (highest_score(x, keys, bias),)


def _module(name: str) -> Run:
    def run(x: Tensor) -> Sequence[Tensor]:
        torch.manual_seed(1)
        module = quantizers.create(name, dim=16, codebook_size=64).to(x.device, x.dtype)
        x = x.requires_grad_()
        out = module(x)
        (gradient,) = torch.autograd.grad(out.quantized.sin().sum() + out.loss, x)
        return out.indices, out.quantized.detach(), out.loss.detach(), gradient, module.eval().encode(x)

    return run


# Widths on both sides of the one up to which rows stay in shared memory through the loop over codes.
CASES = {
    "search, D 8": Case(_search(300, 200, 8), _indices),
    "search, D 100, two heads": Case(_search(70, 130, 100, heads=2), _indices),
    "search, D 260": Case(_search(40, 90, 260), _indices),
    "pruned search, D 8": Case(_search(300, 200, 8), _pruned),
    "pruned search, D 100, two heads": Case(_search(70, 130, 100, heads=2), _pruned),
    "search, high, D 16": Case(_search(300, 200, 16), _indices, "high"),
    "search, high, D 260": Case(_search(40, 90, 260), _indices, "high"),
    "search, medium, D 100": Case(_search(70, 130, 100), _indices, "medium"),
    "search of bfloat16": Case(_search(300, 200, 16), _indices, dtype=torch.bfloat16),
    "search of float64": Case(_search(70, 60, 16), _indices, dtype=torch.float64),
    "five nearest codes": Case(_search(300, 200, 16), _k_nearest),
    "five nearest codes of twins": Case(_draw_twins, _k_nearest),
    "lookup and gradients": Case(_search(300, 50, 16), _lookup),
    "sums": Case(_draw_sums, _sums),
    "rotation": Case(_draw_rotation, _rotation),
    "levels": Case(_draw_levels, _levels),
    "soft codes": Case(_draw_soft, _soft(noisy=False)),
    "soft codes with noise": Case(_draw_soft, _soft(noisy=True)),
    "highest score": Case(_draw((100, 70), (70, 70), (70,)), _highest),
    "step of ema_vq": Case(_draw((100, 16)), _module("ema_vq")),
    "step of rotation_vq": Case(_draw((100, 16)), _module("rotation_vq")),
    "step of gumbel": Case(_draw((100, 16)), _module("gumbel")),
    "step of fsq": Case(_draw((100, 16)), _module("fsq")),
}


def phases(interpreted: bool, workers: int) -> list[Phase]:
    """Each part in a process of its own; in the interpreter all in one, since a process takes seconds to start."""
    return [Phase(tuple(CASES), 1 if interpreted else workers)]


def run(part: str, place: Place) -> Numbers:
    """Return the largest error relative to the largest value of a result, and the number of indices.

    Raises: Mismatch for a wrong result; what the kernels raise.
    """
    case = CASES[part]
    drawn = [tensor.to(place.device) for tensor in case.draw()]
    rounded = [tensor.to(case.dtype) if tensor.is_floating_point() else tensor for tensor in drawn]
    doubles = [tensor.double() if tensor.is_floating_point() else tensor for tensor in rounded]
    torch.set_float32_matmul_precision(case.precision)
    with use_implementation("triton"):
        results = case.run(*(tensor.clone() for tensor in rounded))
        place.wait()
    torch.set_float32_matmul_precision("highest")
    with use_implementation("reference"):
        expected = case.run(*(tensor.clone() for tensor in doubles))
    if case.precision != "highest":
        return _check_near(results[0], *doubles)
    return _check(results, expected)


def _check(results: Sequence[Tensor], expected: Sequence[Tensor]) -> Numbers:
    worst, wrong = 0.0, 0
    for place, (result, target) in enumerate(zip(results, expected, strict=True)):
        if result.shape != target.shape:
            raise Mismatch(f"result {place} has shape {tuple(result.shape)}, expected {tuple(target.shape)}")
        if not target.is_floating_point():
            wrong += int((result != target).sum())
            continue
        error = float((result.double() - target).abs().max() / target.abs().max().clamp(min=2.0**-126))
        if not error <= WRONG:  # NaN is wrong, too
            raise Mismatch(f"result {place} is off by {error:.2g} of its largest value; {wrong} indices are wrong")
        worst = max(worst, error)
    if wrong:
        raise Mismatch(f"{wrong} indices are wrong; other results are off by at most {worst:.2g}")
    return {
        "worst_error": worst,
        "indices": sum(target.numel() for target in expected if not target.is_floating_point()),
    }


def _check_near(indices: Tensor, x: Tensor, codebook: Tensor) -> Numbers:
    """Check that each chosen code is as near as products of rounded operands can tell.

    A score is off by at most E = (ROUNDED + accumulation)·a·R, so that the score of the chosen code exceeds the
    smallest by at most 2E, and its squared distance by 4E. With D ≤ 260, accumulation in any order, truncated or
    not, is below (9/4 · 384 + 2)·2⁻²⁴ < 2⁻¹³.
    """
    if not ((indices >= 0) & (indices < codebook.shape[1])).all():
        raise Mismatch("an index is out of range")
    distances = torch.cdist(x, codebook).square()
    excess = distances.gather(2, indices[..., None])[..., 0] - distances.amin(2)
    centre = codebook.mean(1, keepdim=True)
    radius = (codebook - centre).norm(dim=2).amax(1)
    allowed = 4 * (ROUNDED + 2.0**-13) * (x - centre).norm(dim=2) * radius[:, None]
    if (excess > allowed).any():
        raise Mismatch(
            f"a code is farther than the nearest by {float((excess / allowed).max()):.2g} times the bound"
        )
    return {
        "wrong": int((excess > 0).sum()),
        "of the bound": float((excess / allowed).max()),
        "indices": indices.numel(),
    }
