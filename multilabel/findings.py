"""What stands out in labels and pictures, in plain sentences: what it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .inspection import AttributeFacts, Group, Inspection
from .labels import printable

_NAMED = 3  # so many examples a sentence names
_MOSTLY = 0.9  # score from which it is worth knowing that always giving the same answer has it
_UNKNOWN = 0.5  # share of unknown labels that is much
_AGREE = 0.9  # correlation from which two attributes are nearly the same


@dataclass(frozen=True)
class Finding:
    """What to look at before training.

    Attributes:
        what: one sentence.
        advice: what to do.
    """

    what: str
    advice: str


def findings(inspection: Inspection) -> tuple[Finding, ...]:
    """What stands out: what is broken first, then labels, then copies and pictures."""
    return (
        *_files(inspection),
        *_attributes(inspection),
        *_tags(inspection),
        *_copies(inspection),
        *_pictures(inspection),
    )


def counted(number: int, noun: str) -> str:
    """`1 picture`, `2,000 pictures`, `2 copies`, `2 classes`."""
    if number == 1:
        return f"1 {noun}"
    ending = {"y": "ies", "s": "ses"}.get(noun[-1], noun[-1] + "s")
    return f"{number:,} {noun[:-1]}{ending}"


def listed(names: Sequence[str], most: int = _NAMED, *, cut: bool = True) -> str:
    """The first names, and how many more there are; with `cut`, each as `printable` makes it fit for one line."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most]) if cut else names[:most]) + more


def _files(inspection: Inspection) -> Iterator[Finding]:
    if absent := inspection.absent:
        yield Finding(
            f"{counted(len(absent), 'picture')} of the labels file {_is(absent)} not there: {listed(absent)}.",
            "Add the files, or check --images; fit leaves these rows out, and with --strict it stops.",
        )
    if broken := inspection.pictures.broken:
        reasons = listed([f"{name} ({reason})" for name, reason in broken])
        yield Finding(
            f"{counted(len(broken), 'file')} cannot be read: {reasons}.",
            "Replace them; fit leaves them out and lists them in skipped.csv.",
        )


def _attributes(inspection: Inspection) -> Iterator[Finding]:
    unlabelled = [facts.name for facts in inspection.attributes if not facts.known]
    if unlabelled:
        yield Finding(
            f"No picture has a known label for {listed(unlabelled)}.",
            "Label some, or leave the attribute out with --attributes; fit refuses it as it is.",
        )
    for facts in inspection.attributes:
        if facts.known:
            yield from _one_attribute(facts, inspection)
    unknown = [facts for facts in inspection.attributes if facts.known < facts.unknown and facts.known]
    if unknown:
        shares = [f"{facts.name} ({facts.unknown / len(inspection.names):.0%})" for facts in unknown]
        yield Finding(
            f"Most labels are unknown of {listed(shares)}.",
            "Unknown labels count nothing in training; if most of them mean absent, try fit --missing negative or "
            "selective.",
        )
    yield from _agreeing(inspection)


def _one_attribute(facts: AttributeFacts, inspection: Inspection) -> Iterator[Finding]:
    name, fewest = printable(facts.name), inspection.min_count
    for count, what, other in ((facts.positives, "present", "absent"), (facts.negatives, "absent", "present")):
        if not count:
            yield Finding(
                f"{name} is never {what}: all {counted(facts.known, 'known label')} {_say(facts.known)} {other}.",
                f"Label pictures where it is {what}, or leave it out with --attributes: there is nothing to tell apart."
                + (" If unlabelled means absent, fit --missing negative." if what == "absent" else ""),
            )
    if 0 < facts.positives < fewest:
        yield Finding(
            f"{name} has only {counted(facts.positives, 'positive')} in {facts.known:,} known labels.",
            "Label more pictures that have it; with so few its score is uncertain and its threshold is shared.",
        )
    if 0 < facts.negatives < fewest:
        yield Finding(
            f"{name} has only {counted(facts.negatives, 'negative')} in {facts.known:,} known labels.",
            "Label more pictures without it.",
        )
    if facts.negatives and facts.f1_of_always_yes >= _MOSTLY:
        yield Finding(
            f"{name} is present in {facts.share:.0%} of its known labels, so always saying yes scores "
            f"F1 {facts.f1_of_always_yes:.2f}.",
            "Judge it by how far it is above its chance level, not by its F1; label more pictures without it.",
        )


def _agreeing(inspection: Inspection) -> Iterator[Finding]:
    together = inspection.together
    phi, few = together.phi, together.few
    pairs = np.argwhere(np.triu((np.abs(np.nan_to_num(phi)) >= _AGREE) & ~few, k=1))
    said = [
        f"{together.names[a]} and {together.names[b]} ({'' if phi[a, b] > 0 else 'opposite, '}phi {phi[a, b]:.2f})"
        for a, b in pairs
    ]
    if said:
        yield Finding(
            f"{counted(len(said), 'pair')} of attributes nearly always {'goes' if len(said) == 1 else 'go'} together: "
            f"{listed(said)}.",
            "Are they the same thing, or was one filled in from the other? Then one of them is enough (--attributes).",
        )


def _tags(inspection: Inspection) -> Iterator[Finding]:
    fewest, total = inspection.min_count, len(inspection.names)
    rare = []
    for facts in inspection.tags:
        few = [f"{label}: {count}" for label, count in facts.counts[::-1] if count < fewest]
        if few:
            rare.append(
                f"{len(few):,} of {counted(len(facts.counts), 'class')} of {printable(facts.name)} ({listed(few)})"
            )
    if rare:
        yield Finding(
            f"Classes with fewer than {fewest} labels: {listed(rare, 2 * _NAMED, cut=False)}.",
            f"fit --min-count {fewest} makes them one class together, or, with --rare drop, unknown.",
        )
    for facts in inspection.tags:
        name = printable(facts.name)
        if facts.known and facts.counts[0][1] >= _MOSTLY * facts.known:
            largest, count = facts.counts[0]
            yield Finding(
                f"{name} is '{printable(largest)}' in {count / facts.known:.0%} of its known labels, so always saying "
                f"that scores accuracy {count / facts.known:.2f}.",
                "Judge it by its macro F1 and its chance level; fit --class-weight balanced makes rare classes count "
                "as much.",
            )
        if facts.unknown > _UNKNOWN * total:
            yield Finding(
                f"{name} is unknown in {facts.unknown / total:.0%} of the pictures.",
                "Those pictures teach nothing about it; label more of them.",
            )


def _copies(inspection: Inspection) -> Iterator[Finding]:
    identical = [group for group in inspection.groups if group.identical]
    similar = [group for group in inspection.groups if not group.identical]
    for groups, what in ((identical, "copies of a picture"), (similar, "pictures that look alike")):
        if disagreeing := list(_disagreeing(inspection, groups)):
            yield Finding(
                f"The labels of {what} disagree on {listed(disagreeing, 2 * _NAMED, cut=False)}.",
                "One of the labels may be wrong: look at the pictures.",
            )
    across = [group for group in inspection.groups if len(group.parts) > 1]
    if across:
        yield Finding(
            f"The split puts copies or look-alikes into different parts: {_groups(inspection, across)}.",
            "Move them into the same part; else the model is measured on pictures that it was trained on.",
        )
    if identical:
        pictures = sum(len(group.rows) for group in identical)
        yield Finding(
            f"{pictures:,} pictures are copies, byte for byte: {_groups(inspection, identical)}.",
            "fit keeps copies in the same part; keep one of each, so that no picture counts twice.",
        )
    if similar:
        yield Finding(
            f"Pictures look alike (saved again, resized or retouched): {_groups(inspection, similar)}.",
            "Look at them: fit may put them into different parts, and then the scores are flattering.",
        )


def _disagreeing(inspection: Inspection, groups: Sequence[Group]) -> Iterator[str]:
    by_column: dict[str, list[Group]] = {}
    for group in groups:
        for conflict in group.conflicts:
            by_column.setdefault(conflict.column, []).append(group)
    for column, those in sorted(by_column.items(), key=lambda item: -len(item[1])):
        yield f"{printable(column)} ({_groups(inspection, those)})"


def _pictures(inspection: Inspection) -> Iterator[Finding]:
    pictures = inspection.pictures
    if pictures.plain:
        yield Finding(
            f"{counted(len(pictures.plain), 'picture')} {_is(pictures.plain)} of nearly one colour: "
            f"{listed(pictures.plain)}.",
            "Is there anything to see? If not, take the rows out.",
        )
    height, width = pictures.image_size
    if 2 * pictures.smaller > len(pictures.sizes):
        typical_width, typical_height = np.median(pictures.sizes, axis=0).astype(int)
        yield Finding(
            f"{pictures.smaller:,} of {counted(len(pictures.sizes), 'picture')} {_is(range(pictures.smaller))} "
            f"narrower or lower than {width}×{height} pixels, and would be enlarged; typical is "
            f"{typical_width}×{typical_height}.",
            f"Enlarging adds nothing to see: try a smaller input, such as fit --image-size "
            f"{min(height, typical_height)}x{min(width, typical_width)}.",
        )


def _groups(inspection: Inspection, groups: Sequence[Group]) -> str:
    """How many there are, and the first."""
    first = listed([inspection.names[row] for row in groups[0].rows])
    return f"{counted(len(groups), 'group')}, such as {first}" if len(groups) > 1 else first


def _is(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _say(number: int) -> str:
    return "says" if number == 1 else "say"
