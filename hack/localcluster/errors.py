"""The one error that a user sees: what happened and what to do next."""


class ClusterError(Exception):
    """A failure that the user can act on.

    Attributes:
        what: What happened, to which object.
        remedy: What to do next.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        """Render both halves, one a line."""
        return f"{self.what}\n  -> {self.remedy}"
