"""The one error that ends the demo."""


class DemoError(Exception):
    """Something is wrong; the message says what, and where it helps, what to do next."""
