"""A diagnosis changes nothing, runs what it is given, and says what it cannot run."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import quantizers
from quantizers import VectorQuantizer, diagnose
from quantizers.diagnosis.gradients import passes_same
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_method, state_of
from tests.training.test_warm_start import TwoLevels, around, built


def random_states() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]


def around_without_ranks(model: nn.Module) -> list[Any]:
    """`around`, which copies values, without what no copy equals."""
    modules, gradients = around(model)
    return [[{key: own[key] for key in own if key != "ranks"} for own in modules], gradients]


def step_of(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_changes(training: bool | None, fails: bool) -> None:
    """Parameters, gradients, buffers, averages, modes, hooks and generators; also after an exception."""
    model, seen = built(), []
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.bottom.register_code_hook(lambda quantizer, event: seen.append(event))
    model.top.register_forward_hook(lambda *_: None)
    model(batch(40))  # makes a cache of the size of a batch
    model.decoded, seen[:] = 0, []
    before, surroundings, generators = state_of(model), around_without_ranks(model), random_states()

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        if fails and model.decoded > 1:
            raise RuntimeError("no more")
        return step_of(model, x)

    try:
        diagnose(model, [batch(40, seed=seed) for seed in range(4)], loss=loss, training=training)
        assert not fails
    except RuntimeError as error:
        assert str(error) == "no more"  # noqa: PT017 - both ends are tested
    model.decoded = 0  # the model's own Python number, which nothing can restore
    assert_same_state(before, state_of(model))
    assert around_without_ranks(model) == surroundings
    assert random_states() == generators
    assert not seen


@pytest.mark.methods
@every_method
def test_no_quantizer_changes(case: Case) -> None:
    """In training mode too, where a forward would move averages."""
    quantizer = case.build()
    before = state_of(quantizer)
    if not case.has_codes:
        with pytest.raises(ValueError, match="contains no quantizer with codes"):
            diagnose(quantizer, [batch(30)])
        return
    report = diagnose(quantizer, [batch(30), batch(10)])
    assert_same_state(before, state_of(quantizer))
    assert quantizer.training
    assert report.measures[0].vectors == 40
    assert str(report)
    assert report.to_dict()["batches"] == 2


@cases_where(lambda case: case.has_codes and passes_same(case.sample))
def test_the_gradient_of_evaluation_is_that_of_training(case: Case) -> None:
    """Bit for bit, of the quantizers of which gradients are measured."""
    quantizer, gradients = case.build(), []
    for training in (True, False):
        x = batch(20).requires_grad_()
        out = copy.deepcopy(quantizer).train(training)(x)
        gradients.append(torch.autograd.grad((out.quantized * batch(20, seed=1)).sum(), x)[0])
    assert torch.equal(*gradients)


def test_gradients_are_those_that_a_step_computes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 8, commitment_weight=0.25))
    x = batch(50)
    z = model[0](x).detach().requires_grad_()
    out = model[1](z)
    out.quantized.retain_grad()
    (out.quantized.square().mean() + out.loss).backward()
    (measures,) = diagnose(
        model, [x], loss=lambda model, x: (out := model(x)).quantized.square().mean() + out.loss
    ).measures
    gradients = measures.gradients
    assert z.grad is not None
    assert gradients is not None
    assert gradients.with_quantizer == pytest.approx(float(z.grad.norm()), rel=1e-5)
    assert gradients.without == pytest.approx(float(out.quantized.grad.norm()), rel=1e-5)
    cosine = nn.functional.cosine_similarity(z.grad.flatten(), out.quantized.grad.flatten(), 0)
    assert gradients.cosine == pytest.approx(float(cosine), rel=1e-5)
    assert all(parameter.grad is None for parameter in model[0].parameters())


def test_a_loss_in_the_output_is_enough() -> None:
    class Output(dict):
        loss: Tensor

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = VectorQuantizer(DIM, 8)

        def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            out = self.quantizer(pixels)
            return {} if labels is None else {"loss": (out.quantized - labels).square().mean()}

    labelled = diagnose(WithLoss(), [{"pixels": batch(60), "labels": batch(60, seed=1)}] * 2)
    assert labelled.no_gradients == ""
    assert labelled.measures[0].gradients is not None  # of a frozen encoder, too: z needs no gradient
    bare = diagnose(WithLoss(), [batch(60)])
    assert bare.measures[0].gradients is None
    assert "pass loss=lambda model, batch" in bare.no_gradients
    assert bare.no_gradients in str(bare)


def test_the_loss_of_a_quantizer_is_not_the_models() -> None:
    report = diagnose(VectorQuantizer(DIM, 8), [batch(60)])
    assert report.measures[0].gradients is None
    assert report.no_gradients == ""  # nobody expects a decoder here


def test_quantizers_that_draw_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), quantizers.create("gumbel", DIM, 8))
    report = diagnose(model, [batch(60)], loss=lambda model, x: model(x).quantized.square().mean())
    assert report.measures[0].gradients is None
    assert "training passes another gradient" in report.no_gradients
    assert "model[1]" in report.no_gradients


def test_each_quantizer_in_a_model_has_its_own() -> None:
    """In the model's order, by name, where the input of one depends on the other."""
    report = diagnose(built(), [batch(60)], loss=step_of)
    assert [each.name for each in report.measures] == ["bottom", "top"]
    assert all(each.gradients is not None for each in report.measures)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_a_compiled_model_runs_eagerly(fresh_compiler: None) -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 8)).eval()
    expected = diagnose(model, [batch(60)], loss=lambda model, x: model(x).quantized.square().mean())
    compiled = torch.compile(model, backend="eager")
    compiled(batch(5))
    report = diagnose(compiled, [batch(60)], loss=lambda model, x: model(x).quantized.square().mean())
    assert report.to_dict() == expected.to_dict()


def test_a_wrapper_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 8)).eval()
    expected = diagnose(model, [batch(60)])
    assert diagnose(nn.DataParallel(model), [batch(60)]).to_dict() == expected.to_dict()
    assert diagnose(AveragedModel(model), [batch(60)]).to_dict() == expected.to_dict()


def test_encode_is_measured_as_forward_is() -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), quantizers.create("residual", DIM, codebook_size=8))
    expected = diagnose(model, [batch(60)])
    report = diagnose(model, [batch(60)], forward=lambda model, x: model[1].encode(model[0](x)))
    assert report.to_dict()["measures"] == expected.to_dict()["measures"]


def test_inside_inference_mode_and_no_grad() -> None:
    model = VectorQuantizer(DIM, 8)
    holder = nn.Sequential(nn.Linear(DIM, DIM), model)
    for around_it in (torch.inference_mode(), torch.no_grad()):
        with around_it:
            report = diagnose(holder, [batch(60)], loss=lambda model, x: model(x).quantized.square().mean())
        assert report.measures[0].gradients is not None


def test_batch_norm_uses_the_batch_in_training_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(DIM), VectorQuantizer(DIM, 8))
    x = 5 + 3 * batch(100)
    by_batch, by_average = (diagnose(model, [x], training=mode).measures[0] for mode in (True, False))
    assert by_batch.vector_norm == pytest.approx(DIM**0.5, rel=1e-3)
    assert by_average.vector_norm is not None
    assert by_average.vector_norm > 5
    assert diagnose(model.eval(), [x]).measures[0].vector_norm == by_average.vector_norm
    assert diagnose(model.train(), [x]).measures[0].vector_norm == by_batch.vector_norm


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batches": []}, ValueError, "batches is empty"),
        ({"batches": batch(3)}, TypeError, "batches is a Tensor, expected an iterable of batches"),
        ({"model": nn.Linear(2, 2)}, ValueError, "model is Linear, which contains no quantizer with codes"),
        ({"forward": lambda model, x: None}, ValueError, "in 1 batches, the model reached none of these"),
        ({"forward": len, "loss": len}, ValueError, "got forward and loss, expected one of them"),
        ({"loss": lambda model, x: model(x)}, ValueError, "loss returned a tensor of shape"),
        ({"loss": lambda model, x: 3.0}, ValueError, "loss returned a float, expected a scalar tensor"),
    ],
)
def test_what_cannot_run_is_said(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = TwoLevels(VectorQuantizer(DIM, 8), VectorQuantizer(DIM, 8))
    with pytest.raises(error, match=message):
        diagnose(**{"model": model, "batches": [batch(20)], **arguments})


def test_a_quantizer_that_no_batch_reaches_is_reported() -> None:
    model = TwoLevels(VectorQuantizer(DIM, 8), VectorQuantizer(DIM, 8))
    report = diagnose(model, [batch(60)], forward=lambda model, x: model.top(x))
    assert [each.vectors for each in report.measures] == [0, 60]
    (finding,) = [each for each in report.findings if each.where == "model.bottom"]
    assert finding.kind == "too-few-vectors"
    assert "No vector reached this quantizer" in finding.meaning
