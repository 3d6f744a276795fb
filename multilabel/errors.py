"""Every error that multilabel raises on purpose.

MultilabelError              one sentence for the person at the terminal; carries the exit code
├── UsageError               the call is wrong (options, names): exit code 2
├── DataError                what was given cannot be used: exit code 1
│   ├── LabelError           lines of a labels file, all of them at once
│   └── ImageError           one picture that cannot be read
├── WeightsError             backbone weights that cannot be had or do not fit: exit code 1
├── BundleError              a folder that is not a readable bundle: exit code 1
├── CheckpointError          the state of a training that cannot be read or written: exit code 1
└── Interrupted              Ctrl-C, with what was kept: exit code 1
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_SHOWN = 20  # so many bad lines are shown


class MultilabelError(Exception):
    """Base of all errors raised on purpose; its text is one clear sentence for a person."""

    exit_code = 1


class UsageError(MultilabelError):
    """The call is wrong: an unknown attribute, an option that contradicts another."""

    exit_code = 2


class DataError(MultilabelError):
    """The labels or pictures cannot be used as they are."""


class LabelError(DataError):
    """A labels file with lines that cannot be read.

    Args:
        path: the labels file.
        problems: `(line number, what is wrong with it)`, in file order; line numbers start at 1.
        advice: a sentence about all of them.
    """

    def __init__(self, path: str | os.PathLike[str], problems: Sequence[tuple[int, str]], advice: str = "") -> None:
        self.path = os.fspath(path)
        self.problems = list(problems)
        self.advice = advice
        super().__init__(self.path, self.problems, advice)  # its own arguments, so that it can be pickled

    def __str__(self) -> str:
        count = len({line for line, _ in self.problems})
        lines, them = ("1 line", "it") if count == 1 else (f"{count} lines", "them")
        details = "\n".join(f"  line {line}: {what}" for line, what in self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            details += f"\n  ... and {len(self.problems) - _SHOWN:,} more"
        advice = f"\n{self.advice}" if self.advice else ""
        return f"{self.path}: {lines} cannot be used; correct {them} and run again.\n{details}{advice}"


class ImageError(DataError):
    """One picture that cannot be read.

    Args:
        path: the file, or a name that stands for the bytes.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(self.path, self.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class WeightsError(MultilabelError):
    """Backbone weights that cannot be downloaded, found or loaded."""


class BundleError(MultilabelError):
    """A folder that is not a bundle, or a bundle that cannot be read or written."""


class CheckpointError(MultilabelError):
    """The state of a training that cannot be read or written."""


class Interrupted(MultilabelError):
    """The person pressed Ctrl-C; the text says what was kept."""
