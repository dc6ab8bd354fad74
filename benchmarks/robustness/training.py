"""Checks of compilation, export, recomputation, and of the state in training, evaluation and copies."""

import copy
import pickle
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.allocations import largest_allocation
from benchmarks.robustness.common import MANY, NO, VECTORS, YES, largest, moved, normal, relative_change
from benchmarks.robustness.subjects import Subject


def graph_breaks(subject: Subject) -> float:
    torch._dynamo.reset()
    return float(torch._dynamo.explain(subject.module)(normal(subject, VECTORS)).graph_break_count)


def one_graph(subject: Subject) -> str:
    torch._dynamo.reset()
    subject.module = torch.compile(subject.module, fullgraph=True, backend="aot_eager")
    subject.train(normal(subject, VECTORS))
    return YES


def export(subject: Subject) -> str:
    subject.module.eval()
    shapes = [{0: torch.export.Dim.DYNAMIC}]
    x = normal(subject, 60)
    program = torch.export.export(subject.module, (x.view(6, 10, -1),), dynamic_shapes=shapes).module()
    other = x.view(4, 15, -1)[:, :10]
    return YES if torch.equal(program(other)[1], subject.module(other)[1]) else NO


def recomputed(subject: Subject) -> tuple[Subject, Subject, Tensor, Tensor]:
    """Return a subject after a plain step, one after a checkpointed step, and the input gradients of both."""
    other = copy.deepcopy(subject)
    inputs = [normal(subject, VECTORS).requires_grad_() for _ in range(2)]
    outputs = [subject.module(inputs[0]), checkpoint(other.module, inputs[1], use_reentrant=False)]
    for quantized, _, *loss in outputs:
        (quantized.square().sum() + sum(each.sum() for each in loss)).backward()
    gradients = [each.grad for each in inputs]
    return subject, other, gradients[0], gradients[1]


def recomputed_state(subject: Subject) -> float:
    plain, again, _, _ = recomputed(subject)
    return moved(plain.state(), again.state())


def recomputed_gradient(subject: Subject) -> float:
    _, _, plain, again = recomputed(subject)
    return largest(plain - again)


def evaluation_state(subject: Subject) -> float:
    subject.train(normal(subject, VECTORS))
    subject.module.eval()
    before = subject.state()
    subject.forward(normal(subject, VECTORS, seed=1))
    return moved(before, subject.state())


def codebook_that_was_set(subject: Subject) -> float:
    codes = normal(subject, subject.size)[0]
    subject.set_codebook(codes)
    subject.train(codes.repeat(2, 1)[None])
    return relative_change(codes, subject.codes())


def largest_tensor(subject: Subject) -> float:
    x = normal(subject, MANY)
    subject.train(x[:, :8])  # loads libraries and fills caches
    return largest_allocation(lambda: subject.train(x)) / (MANY * subject.size)


def copies(subject: Subject, make: Callable[[Subject], Subject]) -> str:
    subject.train(normal(subject, VECTORS))
    other = make(subject)
    again = [each.train(normal(subject, VECTORS, seed=1)).indices for each in (subject, other)]
    return YES if torch.equal(*again) and moved(subject.state(), other.state()) == 0 else NO


def deep_copy(subject: Subject) -> str:
    return copies(subject, copy.deepcopy)


def pickled(subject: Subject) -> str:
    return copies(subject, lambda each: pickle.loads(pickle.dumps(each)))
