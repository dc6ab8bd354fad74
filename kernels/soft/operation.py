"""Softmax-weighted codes: a registered operation whose backward recomputes the probabilities."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_axes, check_device, check_equal, check_floating, check_keys
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation, chosen_implementation, resume_implementation
from quantizers.kernels.common.gradient import gradients_of
from quantizers.kernels.common.modes import is_differentiated_again, is_transformed, leaves_library, with_value
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.soft import compiled, exported, reference

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def _import_soft_codes() -> Callable[..., Outputs]:
    from quantizers.kernels.soft.triton.forward import soft_codes

    return soft_codes


def _import_soft_codes_backward() -> Callable[..., Outputs]:
    from quantizers.kernels.soft.triton.backward import soft_codes_backward

    return soft_codes_backward


SOFT_CODES = Operation(
    name="soft_codes",
    reference=reference.soft_codes,
    compiled=compiled.soft_codes,
    import_triton=_import_soft_codes,
)
SOFT_CODES_BACKWARD = Operation(
    name="soft_codes_backward",
    reference=reference.soft_codes_backward,
    compiled=compiled.soft_codes_backward,
    import_triton=_import_soft_codes_backward,
)


def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return softmax-weighted codes under Gumbel noise, without an N × K matrix in either direction: (1) to (6).

    Args:
        x: [N, D] vectors.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        values: [K, V] codes.
        temperature: 0-d, > 0; receives no gradient.
        seed: 0-d int64, the seed of the noise. Equal seeds, rows and codes give equal noise under every
            implementation (`quantizers.kernels.common.noise`). None: no noise.

    Returns, in float32 (float64 if an input is float64):
        value: [N, V], Σ_k y_k value_k with y = softmax((logits + noise) / temperature).
        indices: [N] int64, argmax of the noisy logits: a sample of softmax(logits), within rounding.
        divergence: [N] in nats, KL(softmax(logits) ‖ uniform).

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_keys(x, keys, bias)
    check_axes("values", values, "[K, V]")
    check_floating(values=values, temperature=temperature)
    check_equal("codes", "keys", keys.shape[0], "values", values.shape[0])
    check_device(x=x, values=values, temperature=temperature)
    if seed is not None and (seed.dtype != torch.int64 or seed.dim()):
        raise TypeError(f"seed is {seed.dtype} of shape {tuple(seed.shape)}, expected 0-d torch.int64")
    value, indices, divergence, _ = _soft(x, keys, bias, values, temperature, seed)
    return value, indices, divergence


def soft_values(x: Tensor, keys: Tensor, bias: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values weighted by a softmax that is held constant, and the logarithm of its sum: (1) without noise.

    Args:
        x: [N, D] vectors.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        values: [K, V].

    Returns, in float32 (float64 if an input is float64):
        value: [N, V], Σ_k p_k value_k with p = softmax(logits); only values receive a gradient.
        log_sum: [N], ln Σ_k exp(logit_k), without a gradient.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_keys(x, keys, bias)
    check_axes("values", values, "[K, V]")
    check_floating(values=values)
    check_equal("codes", "keys", keys.shape[0], "values", values.shape[0])
    check_device(x=x, values=values)
    one = x.new_ones((), dtype=compute_dtype(x, keys, bias, values))
    value, _, _, log_sums = _soft(x.detach(), keys.detach(), bias.detach(), values, one, None)
    return value, log_sums[:, 0]


def _soft(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> Outputs:
    """Call the registered operation; under transforms, combine its result with the derivatives of the plain
    form."""
    arguments = (x, keys, bias, values, temperature, seed)
    if leaves_library():
        return exported.soft_codes(*arguments)
    if not is_transformed():
        outputs: Outputs = _soft_codes(*arguments)
        return outputs
    value, indices, divergence, log_sums = _soft_codes(*(tensor.detach() for tensor in arguments[:5]), seed)
    soft, _, differing, _ = exported.soft_codes(*arguments)
    return with_value(soft, value), indices, with_value(differing, divergence), log_sums


@registered("soft_codes")
def _soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> Outputs:
    return SOFT_CODES.run(x, keys, bias, values, temperature, seed)


@_soft_codes.register_fake
def _(x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None) -> Outputs:
    count, dtype = x.shape[0], compute_dtype(x, keys, bias, values)
    return (
        x.new_empty(count, values.shape[1], dtype=dtype),
        x.new_empty(count, dtype=torch.int64),
        x.new_empty(count, dtype=dtype),
        x.new_empty(count, 2, dtype=dtype),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    value, indices, divergence, log_sums = output
    ctx.mark_non_differentiable(indices, log_sums)
    ctx.set_materialize_grads(False)
    ctx.has_seed = inputs[5] is not None
    tensors = inputs if ctx.has_seed else inputs[:5]
    ctx.save_for_backward(*tensors, value, divergence, log_sums)
    ctx.implementation = chosen_implementation()


def _backward(
    ctx: Any, value_gradient: Tensor | None, _: None, divergence_gradient: Tensor | None, __: None
) -> tuple[Tensor | None, ...]:
    *inputs, value, divergence, log_sums = ctx.saved_tensors
    value_gradient = torch.zeros_like(value) if value_gradient is None else value_gradient
    divergence_gradient = torch.zeros_like(divergence) if divergence_gradient is None else divergence_gradient
    seed = inputs[5] if ctx.has_seed else None
    if is_differentiated_again():

        def outputs(x: Tensor, keys: Tensor, bias: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            value, _, divergence, _ = exported.soft_codes(x, keys, bias, values, inputs[4], seed)
            return value, divergence

        wanted = ctx.needs_input_grad[:4]
        return (*gradients_of(outputs, inputs[:4], wanted, (value_gradient, divergence_gradient)), None, None)
    with resume_implementation(ctx.implementation):
        gradients = _soft_codes_backward(
            value_gradient, divergence_gradient, *inputs[:5], seed, value, divergence, log_sums
        )
    return (*gradients, None, None)


_soft_codes.register_autograd(_backward, setup_context=_save)


@_soft_codes.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
    each = one_by_one(_soft_codes)
    # Noise depends on the row number, which starts from zero in each sample.
    rule = along(_soft_codes, 0, 1, each) if arguments[5] is None else each
    return rule(info, in_dims, *arguments)


@registered("soft_codes_backward")
def _soft_codes_backward(
    value_gradient: Tensor,
    divergence_gradient: Tensor,
    x: Tensor,
    keys: Tensor,
    bias: Tensor,
    values: Tensor,
    temperature: Tensor,
    seed: Tensor | None,
    value: Tensor,
    divergence: Tensor,
    log_sums: Tensor,
) -> Outputs:
    outer, inputs = (value_gradient, divergence_gradient), (x, keys, bias, values)
    return SOFT_CODES_BACKWARD.run(*outer, *inputs, temperature, seed, value, divergence, log_sums)


@_soft_codes_backward.register_fake
def _(value_gradient: Tensor, divergence_gradient: Tensor, *inputs: Tensor) -> Outputs:
    x_gradient, keys_gradient, bias_gradient, values_gradient = (
        tensor.new_empty(tensor.shape) for tensor in inputs[:4]
    )
    return x_gradient, keys_gradient, bias_gradient, values_gradient
