"""Every check: a function that takes a freshly built subject and says what became of it, and how it is told.

A function answers with a number or a word. NotApplicableError where the subject has nothing of the kind; any other
exception is a result too. The data are the same for every subject of the same number of channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.robustness import garbage, training, values
from benchmarks.robustness.subjects import Subject

Value = float | str


@dataclass(frozen=True)
class Check:
    """key: in the JSON. title: in the table, with its unit. does: what is done, in one sentence.

    note: on the peer, mostly what avoids the failure, where something does.
    """

    key: str
    title: str
    does: str
    run: Callable[[Subject], Value]
    note: str = ""


CHECKS = (
    Check(
        "nan_vector",
        "one NaN vector: codes lost, %",
        "A training step on 256 vectors, one of them NaN: codes that are not finite afterwards.",
        garbage.nan_vector,
    ),
    Check(
        "nan_loss",
        "one NaN vector: loss finite",
        "The loss of the same batch in training.",
        garbage.nan_loss,
    ),
    Check(
        "nan_padding",
        "NaN under the mask: codes lost, %",
        "The same step with the NaN vector masked out.",
        garbage.nan_padding,
        "The peer keeps its codes where the padding is overwritten with zeros first.",
    ),
    Check(
        "all_masked_loss",
        "all masked: loss",
        "A training forward whose mask is False everywhere.",
        garbage.all_masked_loss,
    ),
    Check(
        "all_masked_state",
        "all masked: state moves, %",
        "The same forward: norm of the change over the norm, of the tensor of the state that changes most.",
        garbage.all_masked_state,
    ),
    Check("empty_batch_loss", "no vectors: loss", "A training forward on [1, 0, D].", garbage.empty_batch_loss),
    Check(
        "empty_batch_state",
        "no vectors: state moves, %",
        "The same forward: the change of state, measured as above.",
        garbage.empty_batch_state,
    ),
    Check(
        "decode_in_training",
        "decode − quantized, training",
        "The largest difference between what forward gives and what decode gives for its indices, by the codes "
        "that the forward used; 2048 vectors from N(0, 1), the first K of them the codes.",
        values.decode_in_training,
    ),
    Check(
        "decode_in_evaluation",
        "decode − quantized, evaluation",
        "The same in evaluation.",
        values.decode_in_evaluation,
    ),
    Check(
        "decode_in_bfloat16",
        "decode − quantized, bfloat16",
        "The same in training with module and input in bfloat16, and decode's answer cast to it.",
        values.decode_in_bfloat16,
    ),
    Check(
        "decode_of_zeros",
        "decode − quantized, zero vectors",
        "The same in training for vectors of zeros, in float32.",
        values.decode_of_zeros,
        "The peer's rotation_trick=False avoids it; True is the default of its VectorQuantize and SimVQ.",
    ),
    Check(
        "decode_minus_one",
        "decode of −1",
        "What decode gives for −1, the index that a masked vector gets, also from the peer's VectorQuantize.",
        values.decode_minus_one,
    ),
    Check(
        "decode_too_large",
        "decode of K",
        "What decode gives for the first index that is none.",
        values.decode_too_large,
    ),
    Check(
        "wrong_at_100",
        "wrong indices, mean 100, %",
        "2048 vectors from N(100, 1), the first K of them the codes, in evaluation: indices whose code is not the "
        "nearest in float64.",
        values.wrong_at_100,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "wrong_at_1000",
        "wrong indices, mean 1000, %",
        "The same from N(1000, 1).",
        values.wrong_at_1000,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "one_at_a_time",
        "other indices alone, mean 100, %",
        "256 vectors from N(100, 1), one at a time, against the indices that they have in a batch of 2048.",
        values.one_at_a_time,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "autocast",
        "other indices under values.autocast, %",
        "The same float32 vectors with and without CPU autocast to bfloat16, in evaluation.",
        values.autocast,
        "The peer's VectorQuantize and FSQ switch CUDA's autocast off by themselves, not the CPU's.",
    ),
    Check(
        "half_state",
        "50 steps in bfloat16: codes off, %",
        "50 training forwards of a module and input in bfloat16, against the module in float32 on the same "
        "values: norm of the difference of the codes over the way that they went.",
        values.half_state,
        "The peer avoids it as a module that is left in float32.",
    ),
    Check(
        "half_loss",
        "float16, ±300: loss finite",
        "A training forward of a module and input in float16, every element 300 or −300.",
        values.half_loss,
        "The peer avoids it with module and input in float32.",
    ),
    Check("graph_breaks", "graph breaks", "torch._dynamo.explain of a training forward.", training.graph_breaks),
    Check(
        "one_graph",
        "compiles as one graph",
        'torch.compile(fullgraph=True, backend="aot_eager"), a training forward and backward.',
        training.one_graph,
    ),
    Check(
        "export",
        "exports",
        "torch.export.export of forward in evaluation with a free batch axis; run at another size, it gives the "
        "indices of the module.",
        training.export,
        "The peer's SimVQ exports with a fixed batch.",
    ),
    Check(
        "recomputed_state",
        "checkpointing: state off, %",
        "A step under torch.utils.checkpoint (non-reentrant) against a plain one: the difference of state, "
        "measured as above.",
        training.recomputed_state,
    ),
    Check(
        "recomputed_gradient",
        "checkpointing: gradient off by",
        "The same two steps: the largest difference of the input's gradient.",
        training.recomputed_gradient,
    ),
    Check(
        "evaluation_state",
        "evaluation: state moves, %",
        "A forward in evaluation after a training step: the change of state, measured as above.",
        training.evaluation_state,
    ),
    Check(
        "codebook_that_was_set",
        "codebook set: lost in a step, %",
        "Codes from N(0, 1) are set (set_codebook, the peer's codebook setter), then a training step gives each "
        "code two copies of itself: norm of the change over the norm of the codes.",
        training.codebook_that_was_set,
        "The peer keeps codes that come in a state_dict with embed_avg and cluster_size.",
    ),
    Check(
        "largest_tensor",
        "largest tensor, bytes per N·K",
        "The largest allocation in a training step on N = 2048 vectors, by torch's profiler.",
        training.largest_tensor,
    ),
    Check(
        "deep_copy",
        "deepcopy goes on alike",
        "copy.deepcopy after a training step; both take another one on the same data.",
        training.deep_copy,
    ),
    Check("pickled", "pickle goes on alike", "The same with pickle.", training.pickled),
)
