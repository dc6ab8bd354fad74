"""FactorizedVectorQuantize of Spark-TTS."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import perplexity, used_codes
from quantizers.adapters.contracts.audio.factorized import FactorizedAdapter


class SparkAdapter(FactorizedAdapter):
    """Replaces FactorizedVectorQuantize of github.com/SparkAudio/Spark-TTS, the quantizer of its BiCodec (no
    release; tested with a stand-in).

    z [B, D, T] → a dict: `z_q` [B, D, T], `indices` [B, T], `dists` None, `vq_loss` [], `perplexity` [],
    `active_num` []. The loss is that of the new quantizer; the original's is NaN in evaluation. The perplexity and
    the number of codes in use are those of the batch, in training too, and sums over several codebooks. Indices
    then have one more axis, the last.

    With `keep_codebook` codes are compared by angle, as in the original, and the projections are copied.

    Not supported: the distances of all vectors to all codes (`dists`), and the running averages `cluster_size`.

    Source: Wang et al.: Spark-TTS, 2025 (arXiv 2503.01710); `sparktts/modules/vq/factorized_vector_quantize.py`.
    """

    contract: ClassVar[str] = "factorized_spark"
    classes: ClassVar[tuple[str, ...]] = ("FactorizedVectorQuantize",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if not hasattr(original, "threshold_ema_dead_code"):
            raise TypeError("it does not count its codes, unlike the one of Spark-TTS")
        return cls._read_factorized(original)

    @classmethod
    def _projections(cls, original: Any) -> tuple[nn.Module, nn.Module]:
        return original.in_project, original.out_project

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of BiCodec; `dists` is left out."""
        output = module(z)
        yield "forward", {name: value for name, value in output.items() if name != "dists"}
        indices = module.tokenize(z)
        yield "tokenize", indices
        yield "detokenize", module.detokenize(indices)
        yield "get_emb", module.get_emb()

    def forward(self, z: Tensor) -> dict[str, Tensor | None]:  # type: ignore[override]
        """See the class. Raises: ValueError or TypeError for z of another shape or dtype."""
        quantized, indices, loss = self.quantizer(z)
        columns = flat_indices(self.quantizer, indices).reshape(-1, self.quantizer.num_codebooks)
        return {
            "z_q": quantized,
            "indices": indices,
            "dists": None,
            "vq_loss": loss,
            "perplexity": perplexity(columns),
            "active_num": used_codes(columns).sum().float(),
        }

    def tokenize(self, z: Tensor) -> Tensor:
        """The indices [B, T] of z [B, D, T]."""
        return self.quantizer.encode(z)

    def detokenize(self, indices: Tensor) -> Tensor:
        """The vectors [B, D, T] of indices [B, T]."""
        return self._decode_indices(indices)
