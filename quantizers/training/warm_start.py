"""Initial codes for the quantizers in a model, from the vectors that reach them."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from quantizers.composite.composed import outermost
from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.parallel import ProcessGroup
from quantizers.training.runs import Forward, ModelRuns, check_batches, code_hook, undisturbed
from quantizers.training.sample import VectorSample


@torch.no_grad()
def warm_start(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    training: bool = True,
    forward: Forward | None = None,
    max_vectors: int = 2**17,
    process_group: ProcessGroup = "world",
) -> None:
    """Set the codes of every quantizer in a model by k-means on the vectors that reach it in training.

    The quantizers are initialized one after the other, in the order in which a forward reaches them. A later
    quantizer therefore gets what the new codes of the earlier ones leave for it (VQ-VAE-2, Razavi et al. 2019,
    arXiv 1906.00446). For each quantizer, the model runs on all batches, without gradients, and only up to the
    call of that quantizer's forward or `encode`. Then `quantizer.initialize_from` sets its codes and those of the
    quantizers inside it. Frozen codes (`Quantizer.freeze`) do not change.

    The stages or scales inside a quantizer also start one after the other, each from what the codes before it
    leave. A codebook that they share starts from the vectors of all of them, with equal weights. A scale may have
    fewer vectors than codes, such as one per map: then these vectors are codes, and the others lie close beside
    them, until training or DeadCodeReplacement moves them.

        >>> import torch, quantizers
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.rand(64, 8), torch.arange(64)), batch_size=32)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), quantizers.VectorQuantizer(4, codebook_size=16))
        >>> quantizers.warm_start(model, loader)  # of each batch (vectors, labels) the model gets the vectors

    The model runs as it will in its first training step: BatchNorm uses the statistics of the batch, and dropout
    is active. If the model is in training mode, the modes of its modules do not change, so that a frozen BatchNorm
    stays in evaluation mode. If it is in evaluation mode, as `from_pretrained` returns it, it runs as its own
    `train()` leaves it. The quantizers themselves are in evaluation mode. A compiled model runs in eager mode.

    Modes, gradients, buffers, hooks, and the global random generators of torch, numpy and Python are restored at
    the end, even if something raises. Buffers that a forward changes, such as running statistics, are restored
    after each forward. State that a module does not store in buffers is not restored, and neither is a
    non-persistent buffer that a forward has made again in another size.

    Args:
        model: a module that contains quantizers, or a quantizer; possibly in DistributedDataParallel, DataParallel
            or torch.compile.
        batches: an iterable of batches, such as a DataLoader. If a batch is a tensor or a numpy array, it is the
            first argument of the model's forward. If it is a tuple or a list, such as (image, label), the forward
            gets its first elements, as many as it requires; labels and optional arguments such as a mask are left
            out. If it is a mapping (a dict, transformers' BatchFeature), the forward gets the entries that are
            named like its parameters. Tensors are moved to the model's device. There is one pass over the batches
            per quantizer. If `batches` is an iterator and there are several quantizers, the inputs of the model
            are held in memory.
        training: whether the model runs in training mode, as described above; False for evaluation mode.
        forward: called as `forward(model, batch)` to run the model on a batch, for batches or models that the
            rules above do not fit: `forward=lambda model, batch: model.encode(batch["image"])`. It gets the batch
            as the data loader returns it, and the model without its wrapper.
        max_vectors: the maximal number of vectors per quantizer on each rank. They are drawn uniformly from all
            vectors that reach the quantizer. For a quantizer of maps (MultiScaleQuantizer), whole maps are drawn,
            at least one, with at most this number of positions in total.
        process_group: the ranks whose vectors count, "world" for all. Each of them must make this call, with at
            least one batch. If the model contains modules that synchronize ranks in training, such as
            SyncBatchNorm, all ranks need the same number of batches.

    Raises:
        ValueError: for a model without a quantizer, a quantizer that no batch reaches, maps of several sizes
            for a quantizer of maps, max_vectors < 1, and as `Quantizer.initialize_from`.
        TypeError: for a batch of an unknown type, and for one that does not contain what the forward requires.
    """
    check_at_least("max_vectors", max_vectors, 1)
    outer = outermost(model)
    if not outer:
        raise ValueError(f"model is {type(model).__name__}, which contains no quantizer")
    waiting = {name: quantizer for name, quantizer in outer.items() if not quantizer.frozen}
    runs = ModelRuns(model, outer.values(), forward, caller="warm_start")
    inputs = runs.inputs(check_batches(batches), several_passes=len(waiting) > 1)
    with undisturbed(model, outer.values(), training=training):
        while waiting:
            quantizer, sample = _first_reached(runs, inputs, waiting, max_vectors)
            quantizer.initialize_rows(sample.rows(), process_group)
            waiting = {name: other for name, other in waiting.items() if other is not quantizer}


class _ReachedError(BaseException):
    """Ends a forward at the call of a quantizer. No `except Exception` in a model catches it."""


def _first_reached(
    runs: ModelRuns, inputs: Iterable[Any], waiting: dict[str, Quantizer], limit: int
) -> tuple[Quantizer, VectorSample]:
    """Run the model on all inputs.

    Returns: the quantizer among those waiting that the model reaches first, and a sample of its vectors.
    """
    reached: list[tuple[Quantizer, VectorSample]] = []

    def collect(quantizer: Quantizer, event: ForwardEvent) -> None:
        if not reached:
            reached.append((quantizer, VectorSample(quantizer, limit)))
        first, sample = reached[0]
        if first is quantizer:
            sample.add(event.x, event.mask)
            raise _ReachedError

    count = 0
    with code_hook(waiting.values(), collect):
        for each in inputs:
            count += 1
            with suppress(_ReachedError):
                runs.run(each)
    if reached:
        return reached[0]
    if not count:
        raise ValueError(
            "batches is empty, expected at least one batch, and an iterable that allows one pass per quantizer"
        )
    names = ", ".join(repr(name) for name in waiting)
    raise ValueError(
        f"in {count} batches, the model reached none of these quantizers: {names}; pass training=False to run the "
        "model in evaluation mode, or forward=lambda model, batch: ... to run it on a batch yourself"
    )
