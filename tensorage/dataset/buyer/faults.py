"""What may be wrong with a source, and with all of them."""

from __future__ import annotations

from ...errors import TensorageError


class SourceFault(TensorageError):
    """A source did not give what it was asked for.

    Attributes:
        final: it is not asked again: it lied, or it refuses.
        wait: seconds that it asks to be left alone for, 0 when it did not say.
    """

    def __init__(self, message: str, *, final: bool, wait: float = 0.0, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.final = final
        self.wait = wait


class DownloadError(TensorageError):
    """No source is left, and the file is not whole. What came is kept for the next time."""
