"""Models that save themselves with torch.package, such as Descript's DAC, which is built on audiotools."""

from torch import nn

LIBRARY = "quantizers.**"


def allow_package_import(model: nn.Module) -> None:
    """Let a model's packages import this library where they are loaded; without that they cannot be written.

    audiotools.ml.BaseModel lists the names of such libraries in `EXTERN`. The model gets a list of its own,
    because the list of the class belongs to all models.
    """
    for module in model.modules():
        external = getattr(module, "EXTERN", None)
        if isinstance(external, list) and hasattr(module, "_save_package") and LIBRARY not in external:
            setattr(module, "EXTERN", [*external, LIBRARY])  # noqa: B010 - no parameter and no module
