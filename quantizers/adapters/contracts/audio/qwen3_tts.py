"""The quantizer of Qwen3-TTS's tokenizer at 25 Hz."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.contracts.audio.encodec import PackageAdapter


class Qwen3TTSAdapter(PackageAdapter):
    """Replaces DistributedGroupResidualVectorQuantization of the package qwen-tts (0.1.1, the tokenizer at 25
    Hz; tested with a stand-in).

    (x [B, T, D], n_q=None) → (quantized [B, T, D], indices [n, 1, B, T], losses [n, 1]). `encode(x)` → indices;
    `decode(indices)` → [B, T, D]. The axis of length 1 is that of groups.

    The losses are those of the new quantizer, stage by stage and already weighted, in training and in evaluation.
    QINCo has one loss, [1, 1], and always uses all codebooks. The model itself only encodes and decodes, in
    evaluation, and passes no gradient; a training loop calls the quantizer.

    Not supported: several groups, which the original splits along T; a first stage at a lower rate
    (`q0_ds_ratio`), dropout of stages, and moving dead codes within forward; use
    `quantizers.DeadCodeReplacement`, which moves them between steps. The tokenizer at 12 Hz has another quantizer,
    whose codebooks its decoder holds a second time.

    Source: Hu et al.: Qwen3-TTS Technical Report, 2026 (arXiv 2601.15621);
    `qwen_tts/core/tokenizer_25hz/vq/core_vq.py`.
    """

    contract: ClassVar[str] = "qwen3_tts"
    classes: ClassVar[tuple[str, ...]] = ("DistributedGroupResidualVectorQuantization",)
    channel_dim: ClassVar[int] = -1

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        yield "forward", module(z)
        codes = module.encode(z)
        yield "encode", codes
        yield "decode", module.decode(codes)

    @classmethod
    def check_call(cls, original: Any) -> None:
        """Raises: AttributeError for another class; ValueError for settings that are not supported."""
        groups, first = original.num_groups, original.rvqs[0]
        if groups != 1 or first.q0_ds_ratio != 1 or first.quantize_dropout:
            raise ValueError(
                f"{type(original).__name__} has num_groups={groups}, q0_ds_ratio={first.q0_ds_ratio}, "
                f"quantize_dropout={first.quantize_dropout}; expected 1, 1 and False"
            )

    @classmethod
    def stages(cls, original: Any) -> list[Any]:
        """The stages as those of EnCodec's package, which hold their codes themselves."""
        (stages,) = original.rvqs
        return [
            SimpleNamespace(
                project_in=layer.project_in,
                project_out=layer.project_out,
                commitment_weight=layer.commitment_weight,
                _codebook=SimpleNamespace(
                    embed=stages.embed[position],
                    embed_avg=stages.embed_avg[position],
                    cluster_size=stages.cluster_size[position],
                    decay=layer._codebook.decay,
                    epsilon=layer._codebook.epsilon,
                ),
            )
            for position, layer in enumerate(stages.layers)
        ]

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See the class. n_q: how many codebooks to use, from the first; default all."""
        quantized, indices, losses = self._quantize(x, n_q or None)
        return quantized, indices.movedim(-1, 0)[:, None], losses[:, None]

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """Indices [n, 1, B, T] of x [B, T, D]."""
        return self._encode(x, n_q or None)[:, None]

    def decode(self, q_indices: Tensor) -> Tensor:
        """Vectors [B, T, D] of indices [n, 1, B, T]."""
        return self._decode(q_indices.squeeze(1))

    @property
    def num_groups(self) -> int:
        """The number of groups, 1."""
        return 1
