"""The exception for mistakes that the user can correct."""


class InputError(Exception):
    """An argument, folder or device cannot be used. The text is the whole message of the command (exit code 2)."""
