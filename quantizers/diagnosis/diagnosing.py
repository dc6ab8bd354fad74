"""Running a model on batches and measuring its quantizers, without a change of state."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantizers.composite.composed import outermost
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.layout import Rows, to_rows
from quantizers.core.wrappers import named_modules, unwrapped
from quantizers.diagnosis.findings import joined_by_quantizer
from quantizers.diagnosis.gradients import GradientMeter, loss_of
from quantizers.diagnosis.measures import Measures, python_path, root_of
from quantizers.diagnosis.pieces import Piece, Where, flat_indices, pieces
from quantizers.diagnosis.report import Diagnosis
from quantizers.diagnosis.tally import Tally
from quantizers.diagnosis.verdicts import VERDICTS
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.training.runs import Forward, ModelRuns, check_batches, code_hook, undisturbed

Loss = Callable[[Any, Any], Tensor]
"""Called as loss(model, batch); runs the model and returns a scalar."""


def diagnose(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
    training: bool | None = None,
) -> Diagnosis:
    """Measure every quantizer in a model on some batches, and say what is wrong, with a remedy.

        >>> import torch, quantizers
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), quantizers.VectorQuantizer(4, codebook_size=16))
        >>> batches = [torch.randn(32, 8) for _ in range(10)]
        >>> quantizers.warm_start(model, batches)
        >>> report = quantizers.diagnose(model, batches)
        >>> [finding.kind for finding in report.findings]
        []
        >>> print(report)  # doctest: +SKIP

    Nothing changes: parameters, gradients, buffers, moving averages, modes, hooks and the global random generators
    are afterwards what they were, bit for bit, also if something raises. State that a module does not store in
    buffers is not restored, and neither is a non-persistent buffer that a forward has made again in another size.
    The quantizers run in evaluation mode, so that no random draw and no dropout of codebooks disturbs the
    measures, and no other rank needs to take part: each rank measures its own batches. A compiled model runs in
    eager mode, from torch 2.6 on.

    **Gradients** are measured if there is a loss: that of `loss=`, or an attribute or entry `loss` of the model's
    output, as transformers returns it when the batch has labels. The backward pass ends at the quantizers, except
    where a quantizer's input depends on another one. Quantizers whose forward in training draws random numbers,
    or gives other indices or values than in evaluation (Gumbel, NSVQ, OptVQ), are left out.

    Args:
        model: a module that contains quantizers, or a quantizer; possibly in DistributedDataParallel, DataParallel
            or torch.compile.
        batches: an iterable of batches, such as a DataLoader. A batch that is a tensor or an array is the first
            argument of the model's forward; of a tuple such as (image, label) the forward gets as many of the
            first elements as it requires; of a mapping, the entries that are named like its parameters. See
            `warm_start`. There is one pass.
        forward: called as `forward(model, batch)` to run the model, for batches that these rules do not fit. It
            gets the model without its wrapper.
        loss: called as `loss(model, batch)` instead of `forward`; runs the model and returns the training loss.
        training: True to run the modules around the quantizers in training mode (BatchNorm uses the statistics of
            the batch), False for evaluation mode, None for the modes that they have.

    Returns: a `Diagnosis`; `print` it, or use its `measures`, `findings`, `to_dict()` and `plot()`.

    Raises: ValueError for a model without a quantizer that has codes, for no batch, where no batch reaches any
        quantizer, for `forward` together with `loss`, and for a loss that is no scalar; TypeError for a batch of
        an unknown type, and for one that does not contain what the forward requires.
    """
    if forward is not None and loss is not None:
        raise ValueError("got forward and loss, expected one of them: loss runs the model as well")
    outer = {name: quantizer for name, quantizer in outermost(model).items() if quantizer.codebook_size}
    if not outer:
        raise ValueError(f"model is {type(model).__name__}, which contains no quantizer with codes")
    runs = ModelRuns(model, (), loss or forward, caller="diagnose")
    inputs = runs.inputs(check_batches(batches), several_passes=False)
    observer, meter = Observer(outer), GradientMeter(outer)
    mode = unwrapped(model).training if training is None else training
    problem = ""
    with (
        torch.inference_mode(False),
        undisturbed(model, outer.values(), training=mode),
        code_hook(outer.values(), observer),
    ):
        seeks_loss = True
        count = 0
        for each in inputs:
            count += 1
            with torch.set_grad_enabled(seeks_loss), meter.watching():
                output = runs.run(pytree.tree_map(_without_inference, each))
                found = _scalar(output) if loss is not None else loss_of(output)
            seeks_loss = found is not None
            if found is not None and not problem:
                problem = _measure(meter, found)
    if not count:
        raise ValueError("batches is empty, expected at least one batch")
    if not observer.reached:
        names = ", ".join(repr(name) for name in outer)
        raise ValueError(
            f"in {count} batches, the model reached none of these quantizers: {names}; pass forward=lambda model, "
            "batch: ... to run it on a batch yourself"
        )
    measures = _measures(model, observer, meter)
    findings = [(each.name, verdict) for each in measures for judge in VERDICTS if (verdict := judge(each))]
    if not problem and (loss is not None or "" not in outer):  # a quantizer alone has no loss to measure
        problem = meter.why_not(outer)
    return Diagnosis(tuple(measures), joined_by_quantizer(findings), count, problem)


class Observer:
    """A code hook that tallies what reaches the outermost quantizers and those inside them."""

    def __init__(self, quantizers: Mapping[str, Quantizer]) -> None:
        self.quantizers = quantizers
        self.names = {quantizer: name for name, quantizer in quantizers.items()}
        self.tallies: dict[tuple[str, Where], Tally] = {}
        self.not_finite = dict.fromkeys(quantizers, 0)
        self.reached = False

    @torch.no_grad()
    def __call__(self, quantizer: Quantizer, event: ForwardEvent) -> None:
        name = self.names[quantizer]
        self.reached = True
        rows = to_rows(event.x.detach(), event.mask, quantizer.dim, quantizer.channel_dim, event.sizes)
        self.not_finite[name] += _count_not_finite(rows)
        with without_autocast(event.x.device):
            for piece in pieces(Piece((), quantizer, rows, flat_indices(quantizer, event.indices))):
                key = name, piece.where
                if key not in self.tallies:
                    self.tallies[key] = Tally(piece)
                self.tallies[key].add(piece)


def _count_not_finite(rows: Rows) -> int:
    expected = len(rows.valid) if rows.mask is None else int(rows.mask.sum())
    return expected - int(rows.valid.sum())


def _measures(model: nn.Module, observer: Observer, meter: GradientMeter) -> list[Measures]:
    """The measures by quantizer, in the order of the model, each followed by those of its parts."""
    gradients = meter.results()
    root = root_of(next(iter(observer.quantizers)))
    paths = {module: python_path(name, root) for name, module in named_modules(model)}
    found = []
    for name, quantizer in observer.quantizers.items():
        tallies = [tally for (owner, _), tally in observer.tallies.items() if owner == name]
        if not tallies:
            found.append(_unreached(name, quantizer))
        for tally in tallies:
            not_finite = 0 if tally.where else observer.not_finite[name]
            for each in tally.measures(name, not_finite):
                own = None if each.part else gradients.get(name)
                found.append(replace(each, gradients=own, path=paths[tally.quantizer]))
    return found


def _without_inference(value: Any) -> Any:
    """A tensor that was made in inference mode as one that gradients can pass."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _unreached(name: str, quantizer: Quantizer) -> Measures:
    bits = sum(math.log2(size) for size in quantizer.codebook_sizes)
    size = None if quantizer.composed else quantizer.codebook_size
    return Measures(name, "", bits, quantizer.code_dim, 0, 0, size, quantizer=quantizer)


def _measure(meter: GradientMeter, loss: Tensor) -> str:
    """Measure the gradients. Returns: why this cannot be done, or an empty string."""
    try:
        meter.measure(loss)
    except RuntimeError as error:  # such as PyTorch's reentrant activation checkpointing
        return f"Gradients were not measured: {error}"
    return ""


def _scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = (
            f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        )
        raise ValueError(f"loss returned {got}, expected a scalar tensor")
    return value.reshape(())
