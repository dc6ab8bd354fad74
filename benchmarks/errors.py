"""The one exception for what a user can put right."""


class InputError(Exception):
    """An argument, folder or device that cannot be used; its text is the whole message (exit code 2)."""
