"""What the server takes, and how it refuses: one sentence that says what to do, with the status that fits."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What one request may bring.

    Attributes:
        file_bytes: of one picture.
        files: pictures of a request.
        body_bytes: of a request.
        pixels: of one picture; its header tells.
        seconds: that a body may take to arrive, and that an answer may take.
        waiting: pictures that may be in the house at a time; more are told to come again.
        held_bytes: of all bodies that are in the house at a time.
    """

    file_bytes: int = 20 * MEGABYTE
    files: int = 32
    body_bytes: int = 100 * MEGABYTE
    pixels: int = 50_000_000
    seconds: float = 30.0
    waiting: int = 256
    held_bytes: int = 400 * MEGABYTE


class Refusal(Exception):
    """A request that is not answered with what it asked for.

    Args:
        status: of HTTP.
        reason: a sentence that says what to do.
        pictures: what is to be said of each, if each was looked at.
    """

    def __init__(self, status: int, reason: str, pictures: list[dict[str, object]] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.pictures = status, reason, pictures


def busy() -> Refusal:
    """The refusal where there is more to do than can wait."""
    return Refusal(503, "The server has more to do than can wait; ask again in a second.")
