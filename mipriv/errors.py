"""The one exception that stands for "what the user gave cannot be used"."""


class InputError(ValueError):
    """A parameter, file or model from outside that is refused.

    The message is a single line that names what was refused, where it stands and what is
    allowed instead; command-line entry points print it as it is, without a traceback.
    """
