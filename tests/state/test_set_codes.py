"""Codes that are set stay, where they are set does not matter, and what would be lost is refused."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from quantizers import EMAVectorQuantizer, Quantizer, VectorQuantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, seeded, state_of

pytestmark = pytest.mark.methods

settable = cases_where(
    lambda case: hasattr(case.sample, "set_codebook") and not isinstance(case.options.get("transform"), nn.Module)
)


def put_by_setter(quantizer: Quantizer, codes: Tensor) -> None:
    quantizer.set_codebook(codes)  # type: ignore[operator]


def put_into_codebook(quantizer: Quantizer, codes: Tensor) -> None:
    quantizer.codebook.copy_(codes)


def put_into_a_view(quantizer: Quantizer, codes: Tensor) -> None:
    for place, code in enumerate(codes):
        quantizer.codebook.detach()[place] = code


def put_into_data(quantizer: Quantizer, codes: Tensor) -> None:
    quantizer.codebook.data.copy_(codes)


def put_by_loading(quantizer: Quantizer, codes: Tensor) -> None:
    if not hasattr(quantizer, "embedding"):
        pytest.skip("codes are not one tensor of the state")
    quantizer.load_state_dict({"embedding": codes.clone()}, strict=False)


ways = pytest.mark.parametrize(
    "put", [put_by_setter, put_into_codebook, put_into_a_view, put_into_data, put_by_loading]
)


@settable
@ways
def test_codes_are_set_or_refused(case: Case, put: Callable[[Quantizer, Tensor], None]) -> None:
    """And where they are set, a step on the codes themselves leaves them where they are."""
    quantizer = case.build()
    before, codes = state_of(quantizer), torch.randn_like(quantizer.codebook.detach())
    if case.distance == "cosine":
        codes = nn.functional.normalize(codes, dim=-1)
    derived = all(quantizer.codebook is not tensor for tensor in (*quantizer.parameters(), *quantizer.buffers()))
    if derived and put in (put_into_codebook, put_into_a_view, put_into_data):
        with pytest.raises(RuntimeError, match="set_codebook"), torch.no_grad():
            put(quantizer, codes)
        assert_same_state(state_of(quantizer), before)
        return
    with torch.no_grad():
        put(quantizer, codes)
    torch.testing.assert_close(quantizer.codebook.detach(), codes)
    if isinstance(quantizer, EMAVectorQuantizer) and quantizer.dim == quantizer.code_dim:
        for _ in range(3):
            quantizer(codes)
        torch.testing.assert_close(quantizer.codebook, codes, rtol=1e-4, atol=1e-4)


@every_case
def test_a_code_can_be_read_and_cannot_be_lost(case: Case) -> None:
    """`codebook` is the state itself or refuses to be written into; copies of it are plain tensors."""
    quantizer = case.build()
    if not case.has_codes:
        return
    codebook = quantizer.codebook
    stored = any(codebook is tensor for tensor in (*quantizer.parameters(), *quantizer.buffers()))
    if not stored:
        for write in (
            lambda: codebook.detach().zero_(),
            lambda: codebook.detach().__setitem__(0, 0.0),
            lambda: torch.add(codebook.detach(), 1, out=codebook.detach()),
            lambda: nn.init.zeros_(codebook.data),
        ):
            with pytest.raises(RuntimeError, match="would write into codes"), torch.no_grad():
                write()
    copied = codebook.detach().clone()
    assert type(copied) is Tensor
    copied.zero_()
    assert type(codebook + 0) is Tensor
    assert type(pickle.loads(pickle.dumps(codebook.detach()))) is Tensor
    assert torch.equal(copy.deepcopy(codebook.detach()), codebook)


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "angle"])
def test_codes_set_one_by_one_move_from_there(distance: str) -> None:
    """EMA: rows that were set take what their vectors give them from there; the others go on as before."""
    quantizer = EMAVectorQuantizer(DIM, 6, decay=0.5, distance=distance)
    for seed in range(3):
        quantizer(batch(50, seed=seed))
    other = copy.deepcopy(quantizer)
    quantizer.embedding[2] = torch.tensor([9.0, -9.0, 9.0, -9.0])
    quantizer(batch(0))  # nothing is seen, and nothing moves
    assert torch.equal(quantizer.embedding[2], torch.tensor([9.0, -9.0, 9.0, -9.0]))
    x = batch(50, seed=5) * 0.01
    quantizer.eval(), other.eval()
    same = (quantizer.encode(x) != 2) & (quantizer.encode(x) == other.encode(x))
    quantizer.train(), other.train()
    quantizer(x[same]), other(x[same])
    others = torch.arange(6) != 2
    assert torch.equal(quantizer.embedding[others], other.embedding[others])
    direction = nn.functional.cosine_similarity(
        quantizer.embedding[2], torch.tensor([1.0, -1.0, 1.0, -1.0]), dim=0
    )
    assert direction > 0.999


# Freezing


def codes_of(quantizer: Quantizer) -> list[Tensor]:
    return [
        part.codebook.detach().clone()
        for part in quantizer.modules()
        if isinstance(part, Quantizer) and not part.composed and part.codebook_size
    ] or [quantizer.codebook.detach().clone()]


def steps(quantizer: Quantizer, count: int = 3) -> None:
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.SGD(parameters, 0.1) if parameters else None
    for seed in range(count):
        x = batch(60, seed=seed).requires_grad_()
        out = seeded(quantizer, x)
        loss = out.quantized.square().sum() + out.loss
        if loss.requires_grad:
            loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()


frozen_cases = cases_where(lambda case: case.has_codes)


@frozen_cases
def test_frozen_codes_stay(case: Case) -> None:
    """Through training, `train()`, copies and pickles; the encoder still learns to commit to them."""
    quantizer = case.build()
    steps(quantizer)
    assert quantizer.freeze() is quantizer
    before = codes_of(quantizer)
    for module in (quantizer, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        module.eval()
        module.train()
        steps(module)
        module.initialize_from(batch(200))
        assert module.frozen
        for now, then in zip(codes_of(module), before, strict=True):
            assert torch.equal(now, then)


@frozen_cases
def test_thawed_codes_learn_again(case: Case) -> None:
    quantizer = case.build()
    other = copy.deepcopy(quantizer)
    quantizer.freeze().unfreeze()
    assert not quantizer.frozen
    steps(quantizer), steps(other)
    assert_same_state(state_of(quantizer), state_of(other))


@pytest.mark.parametrize("name", ["vq", "ema_vq"])
def test_frozen_codes_can_be_set(name: str) -> None:
    quantizer, codes = Case(name).build().freeze(), torch.randn(32, DIM)
    quantizer.set_codebook(codes)
    steps(quantizer)
    assert torch.equal(quantizer.codebook, codes)


def test_a_decay_of_one_is_frozen_too() -> None:
    quantizer = EMAVectorQuantizer(DIM, 8, decay=1.0)
    before = state_of(quantizer)
    steps(quantizer)
    assert_same_state(state_of(quantizer), before)


# Codes behind something else


class Doubled(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return 2 * raw

    def right_inverse(self, value: Tensor) -> Tensor:
        return value / 2


class Clamped(Doubled):
    def forward(self, raw: Tensor) -> Tensor:
        return raw.clamp(-0.1, 0.1)


class WithoutInverse(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return raw.tanh()


def holds_codes_in_a_parameter(case: Case) -> bool:
    embedding = getattr(case.sample, "embedding", None)
    return hasattr(case.sample, "set_codebook") and isinstance(embedding, nn.Parameter)


@cases_where(holds_codes_in_a_parameter)
def test_a_parametrized_codebook_is_set_where_it_is_read(case: Case) -> None:
    quantizer = case.build()
    parametrize.register_parametrization(quantizer, "embedding", Doubled())
    codes = torch.randn_like(quantizer.embedding)
    quantizer.set_codebook(codes)
    torch.testing.assert_close(quantizer.embedding.detach(), codes)
    if quantizer.has_table:
        quantizer.move_codes(torch.tensor([1, 3]), torch.ones(2, quantizer.code_dim), torch.ones(2))
        expected = torch.ones(2, quantizer.code_dim)
        if case.distance == "cosine":
            expected = nn.functional.normalize(expected, dim=-1)
        if case.choice == "product":  # moved codes have the mean length of all
            expected = nn.functional.normalize(expected, dim=-1) * codes.norm(dim=-1).mean()
        torch.testing.assert_close(quantizer.embedding[[1, 3]].detach(), expected)
    quantizer.freeze()
    before = quantizer.embedding.detach().clone()
    steps(quantizer)
    assert torch.equal(quantizer.embedding, before)


@pytest.mark.parametrize(
    ("between", "sentence"),
    [
        (
            lambda q: parametrize.register_parametrization(q, "embedding", Clamped()),
            "since its parametrization changes it",
        ),
        (
            lambda q: parametrize.register_parametrization(q, "embedding", WithoutInverse()),
            "has no right_inverse",
        ),
        (lambda q: prune.random_unstructured(q, "embedding", 0.5), "for example by pruning"),
    ],
)
def test_codes_that_would_be_lost_are_refused(between: object, sentence: str) -> None:
    quantizer = VectorQuantizer(DIM, 8)
    between(quantizer)  # type: ignore[operator]
    before = quantizer.eval().encode(batch(50))
    with pytest.raises(ValueError, match=sentence):
        quantizer.set_codebook(torch.randn(8, DIM))
    assert torch.equal(quantizer.encode(batch(50)), before)
