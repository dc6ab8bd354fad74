"""ResidualVQ and ResidualSimVQ of vector-quantize-pytorch."""

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import as_residual, stages_of
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    copy_projections,
    refuse,
    refuse_arguments,
    temporarily_frozen,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.simvq import (
    copy_simvq,
    simvq_settings,
    trained_simvq_codes,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.stages import ResidualAdapter, dropout_options
from quantizers.adapters.contracts.vector_quantize_pytorch.vector_quantize_state import (
    channel_axis,
    copy_codes,
    example_of_maps,
    is_frozen,
    restore_masked,
    trained_codes,
    vector_quantize_settings,
    warn_of_lost_training,
)
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.gradients import exact_value

FORWARD_DEFAULTS: dict[str, tuple[object, ...]] = {"indices": (None,), "sample_codebook_temp": (None, 0)}
"""Arguments of the original's forward, each with the values that have no effect."""


class ResidualVQAdapter(ResidualAdapter):
    """Replaces ResidualVQ and ResidualSimVQ of vector-quantize-pytorch (tested with 1.32), also as the modules of
    GroupedResidualVQ: `at=["rvqs.0", "rvqs.1"]`.

    x [B, N, dim] → (quantized, indices [B, N, q], losses [q]), with return_all_codes also the codes
    [q, B, N, channels].

    With `accept_image_fmap` or `channel_first` x is a map [B, dim, ...], and indices are [B, ..., q]. mask [B, N]
    bool. A quantizer without losses of single stages (QINCo) returns its loss as the first of the q and zeros as
    the others.

    With `keep_codebook` the projections are copied and, for each stage, everything that the contracts of
    VectorQuantize and SimVQ copy. Training continues with the gradients of ResidualQuantizer, which follow the
    chain rule. The original holds the residual constant (except with `quant_grad_frac=1`), so that x gets the
    decoder's gradient once from each stage.

    **Beams.** Evaluation searches beams if `eval_beam_size` or the forward's `beam_size` is above 1. Training
    takes the nearest code of each stage, and losses are those of these codes in either mode. This library's
    search compares the distance of the whole sum; the original adds up the distances after each stage. With
    `keep_codebook` it may therefore choose other codes than the original, and a warning says so; their sum is
    never farther away than that of the nearest code of each stage.

    Not supported: beams in training, weighted beam scores, given `indices`, sampling; with `keep_codebook`
    `implicit_neural_codebook` and `diveq`. See VectorQuantizeAdapter for further options of the stages.

    Source: `vector_quantize_pytorch/residual_vq.py` and `residual_sim_vq.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVQ", "ResidualSimVQ")

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        super().__init__(quantizer, original)
        self._beam_width(None, training=False)  # raises for a quantizer without a beam search

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        first, count = original.layers[0], original.num_quantizers
        options = dropout_options(original)
        if _is_simvq(original):
            size, dim = trained_simvq_codes(first).shape
            axis = 1 if original.channel_first else -1
            return QuantizerSpec(dim, size, axis, count, options, simvq_settings(first))
        projects = original.has_projections
        weights = original.beam_score_weights.tolist()
        refuse(type(original).__name__, beam_score_quantizer_weights=None if set(weights) == {1.0} else weights)
        sizes = original.codebook_sizes
        own, keep_options = vector_quantize_settings(first)
        options.update(own, stage_dim=original.codebook_dim)
        if original.shared_codebook:
            options["shared"] = True
        return QuantizerSpec(
            original.project_in.in_features if projects else original.codebook_dim,
            sizes[0] if original.uniform_codebook_size else sizes,
            channel_axis(first),
            count,
            options,
            keep_options,
        )

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return (
            super().example(original, spec) if _is_simvq(original) else example_of_maps(original.layers[0], spec)
        )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        original = module.original if isinstance(module, cls) else module
        # Beams are searched by other scores than the original's.
        out = module(z, beam_size=1) if getattr(original, "eval_beam_size", None) else module(z)
        yield "forward", out
        yield "get_output_from_indices", module.get_output_from_indices(out[1])
        yield "get_codes_from_indices", module.get_codes_from_indices(out[1])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes = trained_simvq_codes if _is_simvq(original) else trained_codes
        if not getattr(original, "uniform_codebook_size", True):
            raise ValueError(
                f"the codebooks have {original.codebook_sizes} codes: read the codebooks of .layers one by one"
            )
        return torch.stack([codes(layer) for layer in original.layers])

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        if not _is_simvq(original):
            refuse(
                f"{type(original).__name__}, with keep_codebook=True,",
                implicit_neural_codebook=original.implicit_neural_codebook,
                diveq=original.diveq,
            )
        copy_stage = copy_simvq if _is_simvq(original) else copy_codes
        shared = getattr(original, "shared_codebook", False)
        stages = stages_of(quantizer, len(original.layers), shared=shared)
        for stage, layer in zip(stages, original.layers, strict=True):
            copy_stage(layer, stage)
        if _is_simvq(original):
            return
        copy_projections(original, quantizer)
        warn_of_lost_training(original.layers[0])
        if is_frozen(original.layers[0]):
            quantizer.freeze()
        if (original.eval_beam_size or 1) > 1:
            warnings.warn(
                f"{type(original).__name__} has eval_beam_size={original.eval_beam_size}. Its codes are kept, but "
                "this library's beam search may choose others of them than the original: it compares the distance "
                "of the whole sum, and the original adds up the distances after each stage.",
                stacklevel=2,
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        indices: None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
        *,
        freeze_codebook: bool = False,
        beam_size: int | None = None,
        **others: object,
    ) -> tuple[Tensor, ...]:
        """See the class.

        Args:
            freeze_codebook: whether the codes stay unchanged in a forward in training. False changes nothing.
                For a graph without breaks call `quantizer.freeze()` before.
            rand_quantize_dropout_fixed_seed: not used, because stages drop out by PyTorch's generator.

        Raises: ValueError for beams in training, and for any other argument of the original that is set.
        """
        refuse_arguments({"indices": indices, **others}, FORWARD_DEFAULTS)
        width = self._beam_width(beam_size, self.training)
        with temporarily_frozen(self.quantizer, freeze_codebook or None):
            quantized, found, losses = self._with_losses(x, mask)
        if width > 1:
            quantized, found = self._improved(x, mask, quantized, width)
        outputs = restore_masked(self, quantized, x, mask), found, losses
        return (*outputs, self.get_codes_from_indices(found)) if return_all_codes else outputs

    def _beam_width(self, beam_size: int | None, training: bool) -> int:
        """The width of the search in this forward. Raises: ValueError if the quantizer cannot search beams."""
        usual = None if training else getattr(self.original, "eval_beam_size", None)
        width = (usual if beam_size is None else beam_size) or 1
        if width > 1 and training:
            raise ValueError(
                f"forward has beam_size={beam_size}, which this contract does not support in training; leave it "
                "out, or search beams in evaluation"
            )
        if width > 1:
            self._with_beams(width)  # raises before the state changes
        return width

    def _with_beams(self, width: int) -> ResidualQuantizer:
        return as_residual(
            self.quantizer,
            f"the beam width is {width}, but quantizer is {type(self.quantizer).__name__}; expected a "
            "ResidualQuantizer",
        )

    def _improved(self, x: Tensor, mask: Tensor | None, greedy: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The results of a beam search, with the gradient of the nearest codes of each stage; NaN stays NaN."""
        indices = self._with_beams(width).encode(x, mask, beam_width=width)
        has_code = (indices >= 0).any(-1).unsqueeze(self.quantizer.channel_dim)
        found = self.quantizer.decode(indices).to(greedy.dtype)
        return exact_value(greedy, found.where(has_code, greedy)), indices


def _is_simvq(original: Any) -> bool:
    return hasattr(original.layers[0], "frozen_codebook")
