"""torch.func, forward-mode differentiation and derivatives of derivatives: those of the mathematics.

Values are bit for bit those of eager mode. Gradients are computed in another way under a transform, and agree up
to rounding: everything here is in float64.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

import quantizers
from quantizers import Quantizer, VQBridge, code_cross_entropy
from quantizers.kernels.soft.operation import soft_codes
from quantizers.training.regularizers import Entropy, Orthogonality, Wasserstein, entropy_loss, orthogonality_loss
from tests.cases import (
    DIM,
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    indices_for,
    modes,
    normal,
    seeded,
    state_of,
)

# What PyTorch warns of in its own forward-mode differentiation.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

Tensors = dict[str, Tensor]
WEIGHTS = normal(8, DIM)
coded = cases_where(lambda case: case.has_codes)
twice = cases_where(
    lambda case: not any(isinstance(part, Wasserstein) for part in case.options.get("regularizers", ()))
)
close = torch.testing.assert_close


def built(case: Case, training: bool) -> tuple[Quantizer, Tensors, Tensor]:
    """A quantizer in float64, its parameters and vectors, one of them masked by NaN."""
    quantizer = case.build().double().train(training)
    x = batch(3, 5, dtype=torch.float64)
    x[1, 2, 0] = torch.nan
    return quantizer, {name: p.detach() for name, p in quantizer.named_parameters()}, x


def objective(quantizer: Quantizer, parameters: Tensors, x: Tensor) -> Tensor:
    """A number that depends on the quantized vectors, not linearly, and on the loss."""
    torch.manual_seed(3)
    quantized, _, loss = functional_call(quantizer, parameters, (x,))
    return quantized.nan_to_num(0.0).mul(WEIGHTS).sin().sum() + loss


def in_eager_mode(quantizer: Quantizer, parameters: Tensors, x: Tensor, **options: bool) -> tuple[Tensor, ...]:
    """The gradients of the vectors and the parameters by autograd."""
    inputs = [value.clone().requires_grad_() for value in (x, *parameters.values())]
    value = objective(quantizer, dict(zip(parameters, inputs[1:], strict=True)), inputs[0])
    return torch.autograd.grad(value, inputs, materialize_grads=True, **options)


def flat(gradients: tuple[Tensors, Tensor]) -> tuple[Tensor, ...]:
    return (gradients[1], *gradients[0].values())


@pytest.mark.methods
@every_case
@modes
def test_torch_func_gives_the_values_and_gradients_of_eager_mode(case: Case, training: bool) -> None:
    quantizer, parameters, x = built(case, training)
    other = copy.deepcopy(quantizer)
    expected = in_eager_mode(quantizer, parameters, x)
    actual = grad(lambda p, v: objective(other, p, v), argnums=(0, 1))(parameters, x)
    close(flat(actual), expected)
    assert_same_state(state_of(quantizer), state_of(other))  # averages moved as far

    def outputs(v: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = seeded(other, v)
        return out.loss, out

    _, values = grad(outputs, has_aux=True)(x)
    for a, b in zip(values, seeded(quantizer, x), strict=True):
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.methods
@twice
@modes
def test_second_derivatives_are_the_same_by_autograd_and_by_torch_func(case: Case, training: bool) -> None:
    """Reverse over reverse by registered backwards, and forward over reverse by PyTorch's own operations."""
    quantizer, parameters, x = built(case, training)
    others = copy.deepcopy(quantizer), copy.deepcopy(quantizer)
    inputs = [value.clone().requires_grad_() for value in (x, *parameters.values())]
    directions = [normal(place, *value.shape) for place, value in enumerate(inputs)]
    value = objective(quantizer, dict(zip(parameters, inputs[1:], strict=True)), inputs[0])
    gradients = torch.autograd.grad(value, inputs, create_graph=True, materialize_grads=True)
    inner = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True)), x.new_zeros(()))
    assert inner.requires_grad
    expected = torch.autograd.grad(inner, inputs, materialize_grads=True)

    def gradient(quantizer: Quantizer) -> Callable[..., tuple[Tensor, ...]]:
        of = grad(lambda p, v: objective(quantizer, p, v), argnums=(0, 1))
        return lambda v, *ps: flat(of(dict(zip(parameters, ps, strict=True)), v))

    arguments = (x, *parameters.values())
    _, by_forward = jvp(gradient(others[0]), arguments, tuple(directions))
    close(by_forward, expected)

    def along(*values: Tensor) -> Tensor:
        pairs = zip(gradient(others[1])(*values), directions, strict=True)
        return sum(((g * d).sum() for g, d in pairs), x.new_zeros(()))

    close(grad(along, argnums=tuple(range(len(arguments))))(*arguments), expected)


@pytest.mark.methods
@cases_where(lambda case: not case.sample.draws_in_training)
@modes
def test_gradients_of_each_sample_are_those_of_a_loop(case: Case, training: bool) -> None:
    quantizer, parameters, x = built(case, training)
    if quantizer.training and quantizer.observes:
        with pytest.raises(RuntimeError, match=r"call quantizer.eval\(\) first"):
            vmap(quantizer)(x)
        quantizer.eval()
    gradient = grad(lambda p, v: objective(quantizer, p, v), argnums=(0, 1))
    mapped = flat(vmap(gradient, in_dims=(None, 0))(parameters, x))
    for sample, v in enumerate(x):
        close(tuple(each[sample] for each in mapped), in_eager_mode(quantizer, parameters, v))


@pytest.mark.methods
@coded
def test_mapped_encode_decode_and_forward_are_those_of_a_loop(case: Case) -> None:
    quantizer, x = case.build().eval(), batch(3, 5)
    indices, quantized = (
        vmap(quantizer.encode)(x),
        vmap(lambda v: quantizer(v).quantized, in_dims=1, out_dims=1)(x),
    )
    assert torch.equal(indices, torch.stack([quantizer.encode(v) for v in x]))
    close(quantized, quantizer(x).quantized, rtol=0, atol=1e-5 if case.multiplies else 0)
    decoded = vmap(quantizer.decode)(indices)
    close(decoded, quantizer.decode(indices), rtol=0, atol=1e-5 if case.multiplies else 0)
    strange = vmap(quantizer.decode)(indices_for(quantizer, torch.tensor([[quantizer.codebook_size, -1]])))
    assert strange[0, 0].isnan().all()  # for a transform there is no value to raise for
    assert (strange[0, 1] == 0).all()


@pytest.mark.foundations
@coded
@modes
def test_randomness_is_drawn_for_each_sample_or_once(case: Case, training: bool) -> None:
    quantizer, x = case.build().train(training), batch(5).expand(3, 5, DIM)
    if quantizer.training and quantizer.observes:
        return
    same = vmap(quantizer, randomness="same")(x)
    different = vmap(quantizer, randomness="different")(x)
    tolerance = 1e-5 if case.multiplies else 0
    close(same.quantized[0], same.quantized[1], rtol=0, atol=tolerance)
    noisy = case.sample.draws_in_training and training
    assert torch.allclose(different.quantized[0], different.quantized[1], rtol=0, atol=tolerance) != noisy


@pytest.mark.foundations
@every_case
def test_forward_mode_without_torch_func_is_that_of_torch_func(case: Case) -> None:
    quantizer, _, x = built(case, training=False)
    direction = normal(1, *x.shape)
    expected = jvp(lambda v: quantizer(v)[::2], (x,), (direction,))[1]
    with forward_ad.dual_level():
        out = quantizer(forward_ad.make_dual(x, direction))
        actual = [forward_ad.unpack_dual(part).tangent for part in out[::2]]
    for a, b in zip(actual, expected, strict=True):
        close(torch.zeros_like(b) if a is None else a, b, equal_nan=True)


@pytest.mark.parametrize("name", ["vq", "rotation_vq", "gumbel", "fsq", "simvq"])
def test_a_jacobian_by_one_batched_backward(name: str) -> None:
    quantizer, _, x = built(Case(name), training=False)
    inputs = x[0].requires_grad_()
    out = quantizer(inputs)
    basis = torch.eye(out.quantized.numel(), dtype=x.dtype).view(-1, *out.quantized.shape)
    (jacobian,) = torch.autograd.grad(out.quantized, inputs, basis, is_grads_batched=True, retain_graph=True)
    close(
        jacobian.view(*out.quantized.shape, *inputs.shape), jacrev(lambda v: quantizer(v).quantized)(x[0].detach())
    )
    if out.loss.requires_grad:
        (loss,) = torch.autograd.grad(out.loss, inputs, torch.ones(2, dtype=x.dtype), is_grads_batched=True)
        close(loss[0], grad(lambda v: quantizer(v).loss)(x[0].detach()))


# By hand, in plain PyTorch


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    return codebook[(x[:, None] - codebook).square().sum(-1).argmin(-1)]


def straight_through_vq(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    codes = nearest(x, codebook)
    loss = (x.detach() - codes).square().mean() + 0.25 * (x - codes.detach()).square().mean()
    return x + (codes - x).detach(), loss


def rotated(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Fifty et al. 2024, as their code has it, and the loss of VQ."""
    codes = nearest(x, codebook)
    u, q = (nn.functional.normalize(v, dim=-1).detach() for v in (x, codes))
    w = nn.functional.normalize(u + q, dim=-1)
    turned = x - 2 * (x * w).sum(-1, keepdim=True) * w + 2 * (x * u).sum(-1, keepdim=True) * q
    value = turned * (codes.norm(dim=-1, keepdim=True) / x.norm(dim=-1, keepdim=True)).detach()
    return value, straight_through_vq(x, codebook)[1]


def along_the_error(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """DiVeQ-detach: the length of the error is differentiated, its direction is not."""
    error = nearest(x, codebook) - x
    length = error.norm(dim=-1, keepdim=True)
    return x + length * (error / length).detach(), x.new_zeros(())


@pytest.mark.parametrize(
    ("case", "plain"),
    [
        (Case("vq"), straight_through_vq),
        (Case("rotation_vq"), rotated),
        (Case("diveq", {"noise_variance": 0.0}), along_the_error),
    ],
    ids=lambda value: str(value) if isinstance(value, Case) else value.__name__,
)
def test_first_and_second_derivatives_are_those_of_the_papers_in_plain_pytorch(
    case: Case, plain: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    quantizer = case.build().double()
    x, codebook = batch(6, dtype=torch.float64), quantizer.get_parameter("embedding").detach()

    def ours(v: Tensor, codes: Tensor) -> Tensor:
        quantized, _, loss = functional_call(quantizer, {"embedding": codes}, (v,))
        return quantized.sin().sum() + loss

    def theirs(v: Tensor, codes: Tensor) -> Tensor:
        quantized, loss = plain(v, codes)
        return quantized.sin().sum() + loss

    for derivative in (grad, hessian):
        close(derivative(ours, argnums=(0, 1))(x, codebook), derivative(theirs, argnums=(0, 1))(x, codebook))


def test_fsq_has_the_curvature_of_its_bound() -> None:
    quantizer = quantizers.create("fsq", dim=2, levels=(5, 8))
    x = normal(1, 7, 2)
    steps, halves = torch.tensor([4.0, 7.0]).double() / 2 * 1.001, torch.tensor([2.0, 4.0]).double()
    offset = torch.tensor([0.0, 0.5]).double()
    bounded = lambda v: ((v + (offset / steps).atanh()).tanh() * steps - offset) / halves  # noqa: E731
    close(hessian(lambda v: quantizer(v).quantized.sum())(x), hessian(lambda v: bounded(v).sum())(x))


# The pieces, whose first derivative is taken in another way than their second


def _losses() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    z, codes, bias, values = (normal(place, *shape) for place, shape in enumerate([(6, 3), (5, 3), (5,), (5, 2)]))
    valid, targets = torch.arange(6) != 2, torch.tensor([1, 2, -1, 0, 4, 3])
    temperature, seed = torch.tensor(0.7, dtype=torch.float64), torch.tensor(5)
    bridge = VQBridge(5, 3, width=8, blocks=1, heads=2, gate=0.5, patch_size=2).double()
    return {
        "entropy": (lambda z, c: entropy_loss(z, c, valid, 1.0, 0.7), (z, codes)),
        "orthogonality": (orthogonality_loss, (codes,)),
        "cross entropy": (lambda z, c: code_cross_entropy(z, c, targets), (z, codes)),
        "soft codes": (lambda *a: soft_codes(*a, temperature, seed)[::2], (z, codes, bias, values)),
        "attention": (bridge, (codes,)),
    }


@pytest.mark.parametrize("name", _losses())
def test_second_derivatives_of_losses_are_those_of_differences(name: str) -> None:
    function, inputs = _losses()[name]
    assert torch.autograd.gradgradcheck(function, [each.requires_grad_() for each in inputs])


@pytest.mark.parametrize("regularizer", [Entropy(0.1, temperature=1.0), Orthogonality(1.0)], ids=str)
def test_regularizers_have_second_derivatives_under_torch_func(regularizer: Any) -> None:
    z, codes, valid = normal(1, 6, 3), normal(2, 5, 3), torch.ones(6, dtype=torch.bool)
    value = lambda c: regularizer(z, valid, c)  # noqa: E731
    close(hessian(value)(codes), torch.autograd.functional.hessian(value, codes))


def test_what_has_no_second_derivative_says_so() -> None:
    quantizer = Case("vq", {"regularizers": [Wasserstein(0.5)]}).build()
    x = batch(9).requires_grad_()
    (first,) = torch.autograd.grad(quantizer(x).loss, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="Wasserstein has no second derivative"):
        first.sum().backward()
    with pytest.raises(NotImplementedError, match="Wasserstein has no second derivative"):
        hessian(lambda v: quantizer(v).loss)(x.detach())


# State


def test_an_ensemble_moves_the_averages_of_each() -> None:
    """As torch.func's tutorial maps models: parameters and buffers of all, on an axis of their own."""
    models, x = [Case("ema_vq").build(decay=0.5) for _ in range(3)], batch(20)
    parameters, buffers = stack_module_state([copy.deepcopy(model) for model in models])
    call = lambda p, b, v: functional_call(models[0], (p, b), (v,))  # noqa: E731
    out = vmap(call, in_dims=(0, 0, None))(parameters, buffers, x)
    for place, model in enumerate(models):
        expected = model(x)
        assert torch.equal(out.indices[place], expected.indices)
        assert torch.equal(out.quantized[place], expected.quantized)
        assert all(torch.equal(buffers[name][place], value) for name, value in model.named_buffers())


def test_codes_of_each_sample_are_searched_each() -> None:
    codebooks, x = normal(1, 3, 8, DIM, dtype=torch.float32), batch(3, 5)
    quantizer = quantizers.create("vq", dim=DIM, codebook_size=8)
    call = lambda codes, v: functional_call(quantizer, {"embedding": codes}, (v,)).indices  # noqa: E731
    for mapped, vectors, dims in ((codebooks, x, (0, 0)), (codebooks, x[0], (0, None))):
        found = vmap(call, in_dims=dims)(mapped, vectors)
        for place, codes in enumerate(codebooks):
            quantizer.set_codebook(codes)
            assert torch.equal(found[place], quantizer.encode(vectors if dims[1] is None else vectors[place]))
