"""Composed quantizers call their components as modules, and find weights that offloading has moved."""

import copy

import pytest
import torch
from torch import Tensor, nn

from quantizers import GroupedQuantizer, MultiScaleQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer
from quantizers.core.projection import Projection
from tests.cases import DIM, Case, batch, cases_where, every_case, seeded

pytestmark = pytest.mark.methods

composed = cases_where(lambda case: case.build().composed)


def parts_of(quantizer: Quantizer) -> list[Quantizer]:
    return [part for part in quantizer.modules() if isinstance(part, Quantizer) and part is not quantizer]


@composed
def test_hooks_of_parts_run_once_at_each_place(case: Case) -> None:
    """Forward hooks see the output of each component."""
    quantizer = case.build()
    seen: list[tuple[Quantizer, tuple[int, ...]]] = []
    for part in parts_of(quantizer):
        part.register_forward_hook(lambda part, _, output: seen.append((part, tuple(output.indices.shape))))
    out = quantizer(batch(6))
    direct = [part for part in getattr(quantizer, "components", []) if part in parts_of(quantizer)]
    folded = isinstance(quantizer, GroupedQuantizer) and len(quantizer.quantizers) == 1
    for part in set(direct):
        assert sum(of is part for of, _ in seen) == (1 if folded else direct.count(part))
    assert out.indices.shape[-1] == quantizer.num_codebooks
    seen.clear()
    quantizer.encode(batch(6))
    assert not seen  # encode is not a forward


def test_hooks_of_the_scales_of_a_pyramid_run() -> None:
    shared, seen = VectorQuantizer(DIM, 8), []
    quantizer = MultiScaleQuantizer(DIM, [shared] * 3, scales=(0.25, 0.5, 1), axes=1)
    shared.register_forward_hook(lambda *_: seen.append(1))
    quantizer(torch.randn(2, 8, DIM))
    assert len(seen) == 3


def offload(model: nn.Module) -> None:
    """Like accelerate's offloading: each module has its tensors only while its `forward` runs."""
    for module in model.modules():
        held = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        if held:
            _offload_one(module, held)


def _offload_one(module: nn.Module, held: dict[str, Tensor]) -> None:
    def place(on_meta: bool) -> None:
        for name, tensor in held.items():
            tensors = module._parameters if name in module._parameters else module._buffers
            value = tensor.to("meta") if on_meta else tensor
            tensors[name] = nn.Parameter(value, tensor.requires_grad) if tensors is module._parameters else value

    forward = module.forward

    def with_weights(*args: object, **kwargs: object) -> object:
        place(on_meta=False)
        try:
            return forward(*args, **kwargs)
        finally:
            place(on_meta=True)

    module.forward = with_weights  # type: ignore[method-assign]
    place(on_meta=True)


@every_case
def test_offloaded_weights_are_found(case: Case) -> None:
    """In a forward, `encode` and `decode` in evaluation, in whichever module they are."""
    model, x = nn.Sequential(nn.Linear(DIM, DIM), case.build()).eval(), batch(12)
    offloaded = copy.deepcopy(model)
    offload(offloaded)
    expected, actual = model(x), offloaded(x)
    assert torch.equal(expected.indices, actual.indices)
    assert torch.equal(expected.quantized, actual.quantized)
    assert torch.equal(model[1].encode(x), offloaded[1].encode(x))
    if case.has_codes:
        assert torch.equal(model[1].decode(expected.indices), offloaded[1].decode(expected.indices))


def test_offloaded_stages_are_read_one_by_one() -> None:
    quantizer = ResidualQuantizer(DIM, [VectorQuantizer(DIM, 8) for _ in range(3)]).eval()
    x, offloaded = batch(12), copy.deepcopy(quantizer)
    offload(offloaded)
    indices = quantizer.encode(x, beam_width=3)
    assert torch.equal(offloaded.encode(x, beam_width=3), indices)
    assert torch.equal(offloaded.decode_stages(indices), quantizer.decode_stages(indices))
    assert torch.equal(offloaded.encode(x, num_codebooks=2), quantizer.encode(x, num_codebooks=2))
    assert torch.equal(offloaded.forward_stages(x).loss, quantizer.forward_stages(x).loss)
    found, expected = (own.forward_values(x)[1] for own in (offloaded, quantizer))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# Functions that initialize a model


def by_class(module: nn.Module) -> None:
    """By class, with `model.apply(init)`."""
    kinds = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
    if isinstance(module, kinds):
        for parameter in module.parameters(recurse=False):
            nn.init.constant_(parameter, 7.0)


def by_name(module: nn.Module) -> None:
    """By the name of the class, as code for GANs often does."""
    name = type(module).__name__
    if any(part in name for part in ("Linear", "Conv", "BatchNorm", "LayerNorm", "RMSNorm", "Embedding")):
        for parameter in module.parameters(recurse=False):
            nn.init.constant_(parameter, 7.0)


@cases_where(lambda case: not any(isinstance(value, nn.Module) for value in case.options.values()))
@pytest.mark.parametrize("initialise", [by_class, by_name])
def test_a_models_initialiser_leaves_the_quantizer_alone(case: Case, initialise: object) -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), case.build(code_dim=3) if case == Case("vq") else case.build())
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    model.apply(initialise)  # type: ignore[arg-type]
    assert (model[0].weight == 7).all()
    for name, value in model[1].state_dict().items():
        assert torch.equal(value, before[name]), name


@every_case
def test_parts_of_another_width_are_drawn_as_linear_layers_are(case: Case) -> None:
    """The draws of nn.Linear, in its order: Projection has its arithmetic in another class."""
    quantizer = case.build()
    if not isinstance(quantizer.project_in, Projection):
        return
    torch.manual_seed(3)
    quantizer.project_in.reset_parameters()
    torch.manual_seed(3)
    linear = nn.Linear(quantizer.dim, quantizer.project_in.out_features)
    assert torch.equal(quantizer.project_in.weight, linear.weight)
    assert torch.equal(quantizer.project_in.bias, linear.bias)
    x = batch(5)
    assert torch.equal(quantizer.project_in(x), linear(x))
    assert seeded(quantizer, x).quantized.shape == x.shape
