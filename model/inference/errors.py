"""What a user can put right; this module imports nothing, so that it can be caught cheaply."""


class InferenceError(Exception):
    """A prediction that cannot be made; the message says why and what to do."""
