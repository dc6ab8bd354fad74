"""What one published model uses to quantize."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from quantizers.core.arguments.forwarding import builder_name
from quantizers.core.registry import Builder


@dataclass(frozen=True)
class Published:
    """What the source says about a model's codes. The options of a preset are tested against it.

    Attributes:
        codebook_size: K, of each codebook.
        code_dim: channels of a code.
        vectors: the vectors that are quantized in each `per`: their number, or the map's size [axes].
        per: what they stand for, such as "second" or "image of 256 × 256 pixels".
        num_codebooks: how many codebooks there are.
        indices: how many indices there are in each `per`, where the source counts them.
        bitrate: kbit/s as the source rounds it, such as "1.1"; empty where it gives none.
    """

    codebook_size: int
    code_dim: int
    vectors: float | tuple[int, ...]
    per: str
    num_codebooks: int = 1
    indices: int | None = None
    bitrate: str = ""


@dataclass(frozen=True)
class Preset:
    """The method of a published model, and its options.

    Options are those that the source states. For all others the library's defaults hold, among them weights of
    losses that the source does not give.

    Attributes:
        name: what follows "preset:" in `quantizers.create`.
        model: the model, in words.
        method: what `create` is called with, a registered name or a function.
        options: what `create` passes on, by name; read-only.
        published: facts to check the options against.
        source: what the numbers were read from: papers by their arXiv number, files by their repository.
        note: what the published model does in another way; empty if nothing is known.
    """

    name: str
    model: str
    method: str | Builder
    options: Mapping[str, object]
    published: Published
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def method_name(self) -> str:
        """The name of the method."""
        return self.method if isinstance(self.method, str) else builder_name(self.method)
