"""Errors that a user can fix; this module imports nothing, so that importing it is cheap."""


class InferenceError(Exception):
    """A prediction that cannot be made; the message says why and how to fix it."""
