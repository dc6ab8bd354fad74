"""What a forward needs is in the checkpoint, and a checkpoint whose indices mean other codes does not load."""

import itertools
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from quantizers import FSQ, MultiScaleQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer
from tests.cases import CASES, DIM, Case, assert_same_state, batch, every_case, indices_for, seeded, state_of

pytestmark = pytest.mark.methods

INDEX_FORMAT = "index_format"


@every_case
def test_all_tensors_are_in_the_state_dict(case: Case) -> None:
    quantizer = case.build()
    assert state_of(quantizer).keys() == quantizer.state_dict().keys()


def loaded_by_name(quantizer: Quantizer, case: Case) -> Quantizer:
    """Built on the meta device and filled by a loader that calls none of our methods."""
    with torch.device("meta"):
        other = case.build()
    for module_name, module in other.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    found = quantizer.state_dict()[f"{module_name}.{name}".removeprefix(".")].clone()
                    tensors[name] = torch.nn.Parameter(found) if isinstance(tensor, torch.nn.Parameter) else found
    return other


@every_case
def test_a_loader_of_tensors_by_name_gives_the_same_quantizer(case: Case) -> None:
    quantizer, x = case.build(), batch(20)
    for _ in range(2):
        quantizer(x + 1)
    other = loaded_by_name(quantizer, case)
    for training in (True, False):
        expected, actual = (seeded(module.train(training), x) for module in (quantizer, other))
        assert torch.equal(expected.quantized, actual.quantized)
        assert torch.equal(expected.indices, actual.indices)
        assert torch.equal(expected.loss, actual.loss)
        if case.has_codes:
            assert torch.equal(quantizer.decode(expected.indices), other.decode(expected.indices))
    assert_same_state(state_of(quantizer), state_of(other))


@every_case
def test_a_module_of_meta_gets_memory_and_can_move(case: Case) -> None:
    with torch.device("meta"):
        quantizer = case.build()
    quantizer.to_empty(device="cpu").to(torch.float64)
    assert not any(tensor.is_meta for tensor in state_of(quantizer).values())


def same_names_and_shapes() -> list[list[Case]]:
    """Cases whose state has the same names, shapes and codebook size: only a rule could tell their codes apart."""
    groups = defaultdict(list)
    for case in CASES:
        state = case.build().state_dict()
        form = tuple((name, tuple(value.shape)) for name, value in state.items() if INDEX_FORMAT not in name)
        groups[form, case.build().codebook_sizes, case.build().code_dim].append(case)
    return [group for group in groups.values() if len(group) > 1]


def differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a.float(), b.float(), atol=1e-5)


@pytest.mark.parametrize("group", same_names_and_shapes(), ids=lambda group: f"{group[0]}-and-{len(group) - 1}")
def test_what_loads_means_the_same_codes(group: list[Case]) -> None:
    """Of two quantizers whose states have one form, either the second refuses the first's, or both agree."""
    x = batch(40)
    for saved, other in itertools.permutations(group, 2):
        quantizer, loaded = saved.build().eval(), other.build().eval()
        if quantizer._index_rule != loaded._index_rule:
            with pytest.raises(RuntimeError, match="mean other codes"):
                loaded.load_state_dict(quantizer.state_dict())
            continue
        loaded.load_state_dict(quantizer.state_dict())
        if not saved.has_codes:
            continue
        indices = indices_for(quantizer, torch.arange(quantizer.codebook_size))
        assert not differ(quantizer.decode(indices), loaded.decode(indices)), f"{saved} into {other}"
        assert torch.equal(quantizer.encode(x), loaded.encode(x)), f"{saved} into {other}"


@pytest.mark.parametrize(
    ("saved", "other", "sentence"),
    [
        (lambda: FSQ(8, (8, 5, 5)), lambda: FSQ(8, (5, 5, 8)), r"levels \[8, 5, 5\] and not \[5, 5, 8\]"),
        (lambda: FSQ(3, (5, 5, 5)), lambda: FSQ(3, (5, 5, 5), bound="ifsq"), 'bound "tanh" and not "ifsq"'),
        (
            lambda: VectorQuantizer(4, 8),
            lambda: VectorQuantizer(4, 8, distance="cosine"),
            'distance "euclidean" and not "cosine"',
        ),
        (
            lambda: ResidualQuantizer(3, [FSQ(3, (5, 5, 5), bound="clamp")], scales=[1.0]),
            lambda: ResidualQuantizer(3, [FSQ(3, (5, 5, 5), bound="clamp")], scales=[0.5]),
            "scales .* and not",
        ),
        (
            lambda: MultiScaleQuantizer(4, [FSQ(4, (2, 2, 2, 2))] * 2, scales=(0.25, 1), axes=1),
            lambda: MultiScaleQuantizer(4, [FSQ(4, (2, 2, 2, 2))] * 2, scales=(0.5, 1), axes=1),
            r'scales \["1/4", "1"\] and not \["1/2", "1"\]',
        ),
    ],
)
def test_another_configuration_is_named(saved: object, other: object, sentence: str) -> None:
    model = torch.nn.ModuleDict({"bottleneck": other()})  # type: ignore[operator]
    checkpoint = torch.nn.ModuleDict({"bottleneck": saved()}).state_dict()  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=f"checkpoint's indices at 'bottleneck' mean other codes.*{sentence}"):
        model.load_state_dict({name: value.clone() for name, value in checkpoint.items()})


def test_a_checkpoint_without_a_rule_loads() -> None:
    """One of another library's, or older than the rule."""
    quantizer, codes = VectorQuantizer(DIM, 8), torch.randn(8, DIM)
    assert quantizer.load_state_dict({"embedding.weight": codes}).missing_keys == []
    assert torch.equal(quantizer.embedding, codes)
    assert INDEX_FORMAT in quantizer.state_dict()


def test_memory_that_a_loader_left_unfilled_is_not_saved() -> None:
    quantizer = FSQ(3, (5, 5, 5))
    quantizer.get_buffer(INDEX_FORMAT).fill_(7)
    other = FSQ(3, (5, 5, 5))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(quantizer.state_dict()[INDEX_FORMAT], other.state_dict()[INDEX_FORMAT])


def test_an_option_that_is_assigned_later_is_what_the_checkpoint_says() -> None:
    quantizer = VectorQuantizer(DIM, 8)
    quantizer.distance = "cosine"
    quantizer.to(torch.float64).float()
    VectorQuantizer(DIM, 8, distance="cosine").load_state_dict(quantizer.state_dict())
    with pytest.raises(RuntimeError, match='distance "cosine" and not "euclidean"'):
        VectorQuantizer(DIM, 8).load_state_dict(quantizer.state_dict())
