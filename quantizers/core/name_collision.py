"""Another project's package of the same name: the distribution "quantizers", fixed-point quantizers for Keras."""

import os
import warnings

THEIRS = "stateful_quantizers.py"
"""A module of that distribution, in all of its versions so far, whose name this package does not use."""


def warn_if_mixed(package: str) -> None:
    """Warn if a file of the other distribution lies in the folder `package` of this one.

    Looks for the file alone: reading the metadata of what is installed takes as long as importing this package.
    """
    if os.path.exists(os.path.join(package, THEIRS)):
        warnings.warn(
            "The distributions quantizers-torch and quantizers (fixed-point quantizers for Keras) both install a "
            f"package named quantizers, and files of both lie in {package}: `import quantizers` gives "
            "quantizers-torch, and programs that need the other one fail. Uninstall both here, and install them "
            "in separate environments.",
            RuntimeWarning,
            stacklevel=3,  # the import statement of the user
        )
