"""SpeechTokenizer's quantizer, which returns the values of stages one by one."""

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.adapters.bases.copying import as_residual
from quantizers.adapters.bases.signatures import takes
from quantizers.adapters.contracts.audio.encodec import QuantizerAdapter, check_first_stage
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE


class SpeechTokenizerAdapter(QuantizerAdapter):
    """Replaces ResidualVectorQuantizer of the package speechtokenizer (1.0.1; tested with a stand-in).

    (x [B, D, T], n_q=None, layers=None) → (quantized [B, D, T], codes [n, B, T], loss [], values: for each stage
    in `layers`, in ascending order, the vectors of its codes alone, [B, D, T]).

    The values add up to quantized, unless the new quantizer projects once for all stages (residual FSQ). They have
    the gradient of this forward: SpeechTokenizer distills a speech model into the first one. The loss is the mean
    of the losses of the n stages, those of the new quantizer, already weighted, in training and in evaluation.

    Here n is at most N, the number of codebooks. `decode(codes, st)` takes the codes from stage `st` on.

    Not supported: `encode` from a later stage than the first, quantizers that are not residual (QINCo), and
    moving dead codes within forward; use `quantizers.DeadCodeReplacement`, which moves them between steps.

    Source: Zhang et al.: SpeechTokenizer: Unified Speech Tokenizer for Speech Large Language Models, 2023 (arXiv
    2308.16692); `speechtokenizer/quantization/vq.py`.

    Raises: ValueError for a quantizer that is not residual.
    """

    contract: ClassVar[str] = "speechtokenizer"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        self._residual()

    @classmethod
    def check_call(cls, original: Any) -> None:
        if not takes(original, "forward", "layers"):
            raise AttributeError(f"{type(original).__name__}.forward does not take layers")

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z, n_q=None, layers=[0])
        yield "forward", out
        yield "forward with layers", module(z, layers=list(range(module.n_q)))
        yield "encode", module.encode(z, n_q=1, st=0)
        yield "decode", module.decode(out[1])
        yield "decode with st", module.decode(out[1][-1:], st=module.n_q - 1)

    def forward(
        self, x: Tensor, n_q: int | None = None, layers: Collection[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """See the class.

        Args:
            n_q: how many codebooks to use, from the first; default all.
            layers: the stages whose values to return; default none.

        Raises: ValueError for a stage that is not used.
        """
        output, values = self._residual().forward_values(x, **self._codebook_option(n_q or None))
        wanted = sorted(set(layers or ()))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(values):
            raise ValueError(f"layers are {wanted}, expected some of the {len(values)} stages used, from 0")
        kept = [values[stage] for stage in wanted]
        return output.quantized, output.indices.movedim(-1, 0), output.loss.mean(), kept

    def encode(self, x: Tensor, n_q: int | None = None, st: int | None = None) -> Tensor:
        """Indices [n, B, T] of x [B, D, T]. Raises: ValueError for another first stage `st` than 0."""
        check_first_stage(st)
        return self._encode(x, n_q or None)

    def decode(self, codes: Tensor, st: int = 0) -> Tensor:
        """Vectors [B, D, T] of codes [n, B, T] from stage `st` on. Raises: as `Quantizer.decode`."""
        return self._decode(F.pad(codes, (0, 0, 0, 0, st, 0), value=NO_CODE))

    def _residual(self) -> ResidualQuantizer:
        return as_residual(
            self.quantizer,
            f"{type(self.quantizer).__name__} has no stages whose values the model could read one by one; "
            "expected a ResidualQuantizer",
        )
