"""Models that save themselves by torch.package, as those of audiotools, on which Descript's DAC is built."""

from torch import nn

OURS = "quantizers.**"


def let_packages_import(model: nn.Module) -> None:
    """Have a model's packages import this library where they are loaded; without that they cannot be written.

    audiotools.ml.BaseModel keeps the names of such libraries in a list, `EXTERN`. A list of the model's own
    takes its place: the class's is that of all models.
    """
    for module in model.modules():
        external = getattr(module, "EXTERN", None)
        if isinstance(external, list) and hasattr(module, "_save_package") and OURS not in external:
            setattr(module, "EXTERN", [*external, OURS])  # noqa: B010 - no parameter and no module
