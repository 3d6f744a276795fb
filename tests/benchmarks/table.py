"""The tables that benchmarks print: medians of several rounds of one run, with their spread, as ratios."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median


def machine() -> str:
    """What ran it, and when."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux
        pass
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


def interleaved(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives in each round; all take turns, so that a busy moment hits them alike."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            values[name].append(way())
    return values


def markdown(title: str, unit: str, values: Mapping[str, Sequence[float]], base: str, *, inverse: bool = False) -> str:
    """A Markdown table of medians.

    Args:
        title: what was done, the head of the first column.
        unit: of the values.
        values: by name, one value of each round.
        base: the name that the ratios are to.
        inverse: a smaller value is the better one, and a ratio says how many times better than the base.
    """
    lines = [f"| {title} | {unit}, median | lowest to highest | ratio |", "| --- | ---: | ---: | ---: |"]
    for name, measured in values.items():
        ratio = median(measured) / median(values[base])
        shown = f"{1 / ratio if inverse else ratio:.2f}"
        low, high = (f"{value:,.3g}" for value in (min(measured), max(measured)))
        lines.append(f"| {name} | {median(measured):,.3g} | {low} to {high} | {shown} |")
    return "\n".join(lines)
