"""Whatever a program does with a quantizer, in whatever order: its state stays whole, and its codes decode."""

import copy
import functools
import io

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from torch import Tensor

from quantizers import EMAVectorQuantizer, Quantizer
from tests.cases import NAMES, Case, assert_same_state, batch, normal, rounding_tolerance, state_of
from tests.effort import examples
from tests.implementations import under
from tests.methods.test_ema import smoothed

pytestmark = [pytest.mark.methods, pytest.mark.slow]

FUZZED = [
    *map(Case, NAMES),
    Case("ema_vq", {"distance": "cosine"}),
    Case("simvq", {"transform": "linear", "learned_basis": True, "gradient": "rotation"}),
    Case("fsq", {"levels": (8, 5, 6), "codebook_size": None}),
    Case("gumbel", {"logits": "distance", "hard": True}),
]
EPS = torch.finfo(torch.float32).eps

seeds = st.integers(0, 2**31)
counts = st.integers(0, 20)
optimizers = st.sampled_from(["SGD", "Adam"])
values = st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 0.0])


class Use(RuleBasedStateMachine):
    """A quantizer in use: by training, evaluation, masks, garbage, copies, checkpoints, casts, implementations."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.case = case
        self.quantizer = case.build()
        self.implementation = "auto"
        self.optimizer = self.make_optimizer("SGD")

    def make_optimizer(self, name: str) -> torch.optim.Optimizer | None:
        parameters = list(self.quantizer.parameters())
        return getattr(torch.optim, name)(parameters, lr=0.1) if parameters else None

    def vectors(self, count: int, seed: int) -> Tensor:
        """[count, DIM], or [count, DIM, 3] where the channels stand on axis 1."""
        if self.quantizer.channel_dim == -1:
            return batch(count, seed=seed)
        return batch(count, 3, seed=seed).movedim(-1, 1)

    def train(self, x: Tensor, mask: Tensor | None = None) -> None:
        """A step as a training loop takes it: gradients that are not finite are skipped, large ones clipped."""
        self.quantizer.train()
        self.quantizer.zero_grad()
        x = x.requires_grad_()
        with under(self.implementation):
            out = self.quantizer(x, mask)
            roots = [root for root in (out.quantized, out.loss) if root.requires_grad]
            torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
        assert not out.loss.isnan()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        self.check_indices(x, mask, out.indices)
        gradients = [p.grad for p in self.quantizer.parameters() if p.grad is not None]
        if self.optimizer and all(gradient.isfinite().all() for gradient in gradients):
            torch.nn.utils.clip_grad_value_(self.quantizer.parameters(), 1.0)
            self.optimizer.step()

    def check_indices(self, x: Tensor, mask: Tensor | None, indices: Tensor) -> None:
        counts = x.detach().isfinite().all(self.quantizer.channel_dim)
        if mask is not None:
            counts &= mask
        assert (indices[~counts] == -1).all()
        lowest, size = (0, self.quantizer.codebook_size) if self.case.has_codes else (-1, 0)
        assert ((indices[counts] >= lowest) & (indices[counts] < size)).all()

    @rule(count=counts, seed=seeds)
    def train_step(self, count: int, seed: int) -> None:
        self.train(self.vectors(count, seed))

    @rule(count=counts, seed=seeds)
    def masked_step(self, count: int, seed: int) -> None:
        x = self.vectors(count, seed)
        shape = x.shape[:1] + x.shape[2:]
        self.train(x, normal(seed, *shape) > 0)

    @rule(rows=st.lists(values, min_size=1, max_size=20), seed=seeds)
    def garbage_step(self, rows: list[float], seed: int) -> None:
        """Half the vectors have one value that is garbage, or all of them."""
        x = self.vectors(len(rows), seed)
        for row, value in enumerate(rows):
            x[row, :: 1 + row % 3] = value
        self.train(x)

    @rule(count=counts, seed=seeds)
    def observe_without_gradient(self, count: int, seed: int) -> None:
        self.quantizer.train()
        with torch.no_grad(), under(self.implementation):
            self.quantizer(self.vectors(count, seed))

    @rule(count=counts, seed=seeds)
    def encode(self, count: int, seed: int) -> None:
        before, x = state_of(self.quantizer), self.vectors(count, seed)
        with under(self.implementation):
            self.check_indices(x, None, self.quantizer.encode(x))
        assert_same_state(before, state_of(self.quantizer))

    @rule(name=optimizers)
    def change_optimizer(self, name: str) -> None:
        self.optimizer = self.make_optimizer(name)

    @rule(channel_dim=st.sampled_from([-1, 1]))
    def change_layout(self, channel_dim: int) -> None:
        self.quantizer.channel_dim = channel_dim

    @rule(name=st.sampled_from(["auto", "reference", "blocked", "compiled"]))
    def change_implementation(self, name: str) -> None:
        self.implementation = name

    @rule()
    def continue_from_a_checkpoint(self) -> None:
        file = io.BytesIO()
        torch.save(self.quantizer.state_dict(), file)
        file.seek(0)
        fresh = self.case.build().to(self.dtype())
        fresh.channel_dim = self.quantizer.channel_dim
        fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
        self.replace(fresh)

    @rule()
    def continue_with_a_copy(self) -> None:
        copied = copy.deepcopy(self.quantizer)
        assert_same_state(state_of(self.quantizer), state_of(copied))
        self.replace(copied)

    def replace(self, quantizer: Quantizer) -> None:
        """Go on with another instance, and an optimizer that goes on from the last one's state."""
        old = self.optimizer
        self.quantizer = quantizer
        if old:
            self.optimizer = self.make_optimizer(type(old).__name__)
            self.optimizer.load_state_dict(old.state_dict())

    @rule(dtype=st.sampled_from([torch.half, torch.bfloat16, torch.float, torch.double]))
    def cast(self, dtype: torch.dtype) -> None:
        """Below float32 nothing moves."""
        before = state_of(self.quantizer)
        self.quantizer.to(dtype)
        if dtype.itemsize < 4:
            assert_same_state(before, state_of(self.quantizer))
        self.optimizer = self.make_optimizer(type(self.optimizer).__name__) if self.optimizer else None

    def dtype(self) -> torch.dtype:
        return next((t.dtype for t in state_of(self.quantizer).values() if t.is_floating_point()), torch.float)

    @precondition(lambda self: hasattr(self.quantizer, "set_codebook"))
    @rule(seed=seeds, exponent=st.sampled_from([-20, 0, 10]))
    def set_codebook(self, seed: int, exponent: int) -> None:
        self.quantizer.set_codebook(10.0**exponent * normal(seed, *self.quantizer.codebook.shape).float())

    @precondition(lambda self: hasattr(self.quantizer, "temperature"))
    @rule(temperature=st.sampled_from([1e-3, 0.1, 1.0, 100.0]))
    def set_temperature(self, temperature: float) -> None:
        self.quantizer.temperature = temperature

    @precondition(lambda self: hasattr(self.quantizer, "reset_parameters"))
    @rule()
    def reset(self) -> None:
        self.quantizer.reset_parameters()

    @invariant()
    def state_is_finite_and_in_full_precision(self) -> None:
        for name, tensor in state_of(self.quantizer).items():
            assert tensor.isfinite().all(), name
            assert not tensor.is_floating_point() or tensor.dtype in (torch.float32, torch.float64), name

    @invariant()
    def codes_decode_to_what_evaluation_gives(self) -> None:
        # In the dtype of the state, which decode answers in.
        before, x = state_of(self.quantizer), self.vectors(5, 0).to(self.dtype())
        with torch.no_grad(), under(self.implementation):
            quantized, indices, loss = self.quantizer.eval()(x)
            assert torch.equal(self.quantizer.encode(x), indices)
            assert not loss.isnan()
            if self.case.has_codes:
                gap = (self.quantizer.decode(indices) - quantized).abs().max()
                assert gap <= rounding_tolerance(self.quantizer)
        self.check_indices(x, None, indices)
        assert_same_state(before, state_of(self.quantizer))

    @precondition(lambda self: isinstance(self.quantizer, EMAVectorQuantizer))
    @invariant()
    def averages_and_codes_belong_together(self) -> None:
        """e = m / N̂. K sums and five operations round, and each cast to float32 rounds all three once more."""
        sizes, sums = self.quantizer.cluster_size.double(), self.quantizer.embedding_sum.double()
        expected = sums / smoothed(sizes, self.quantizer.epsilon)[:, None]
        gap = (self.quantizer.embedding.double() - expected).abs()
        assert (gap <= (len(sizes) + 8) * EPS * expected.abs() + 2.0**-149).all()


fuzzed = pytest.mark.parametrize("case", FUZZED, ids=str)


def run(case: Case, sequences: int, steps: int) -> None:
    run_state_machine_as_test(
        functools.partial(Use, case),
        settings=settings(
            examples(sequences),
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


@fuzzed
def test_any_sequence_of_uses_leaves_a_whole_quantizer(case: Case) -> None:
    run(case, sequences=12, steps=15)


@pytest.mark.long
@fuzzed
def test_any_long_sequence_of_uses_leaves_a_whole_quantizer(case: Case) -> None:
    run(case, sequences=200, steps=40)
