"""What the local stack says when it cannot go on."""


class StackError(Exception):
    """The message says what failed and what to do next; it is shown to the user without a traceback."""
