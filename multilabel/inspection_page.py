"""What an inspection says: short in the terminal, in full with pictures on a page."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from .charts import bar_chart, heatmap
from .findings import Finding, counted, findings, listed
from .inspection import Group, Inspection, TagFacts
from .labels import printable
from .page import GridPicture, Section, escape, figure, note, page, picture_grid, table, thumbnail

_WIDTH = 100  # columns of the terminal
_LINES = 30  # attributes or tags listed in the terminal

# What keeps a page below 5 MB, whatever the data: thumbnails are most of it.
_THUMBNAILS = {"copies": 1_300_000, "attributes": 700_000, "tags": 700_000}  # characters
_MARKUP = 400  # characters about a thumbnail
_LISTED = 200  # files, pairs
_ATTRIBUTES = 500  # rows of a table
_TAGS = 30  # drawn, each with classes
_CLASSES = 120
_GROUPS = 60  # of copies
_COPIES = 6  # of a group
_EXAMPLES = 5  # pictures of an attribute, and as many without it
_CLASS_EXAMPLES = 12  # classes of a tag, a picture each
_PAIRS = 8  # attributes up to which all pairs are listed, and beyond which they are drawn
_HEATMAP = 100

# Width : height, and how many times as wide as high; the limit belongs to the next.
_SHAPES = {"below 1:2": 0.5, "1:2 to 3:4": 0.75, "3:4 to 19:20": 0.95, "about square": 1.05}
_SHAPES |= {"21:20 to 4:3": 4 / 3, "4:3 to 2:1": 2.0, "2:1 and more": math.inf}


def inspection_text(inspection: Inspection) -> str:
    """What the terminal shows: what stands out, then the counts."""
    found = findings(inspection)
    lines = [line for sentence in (_summary(inspection), *inspection.notes) for line in _wrapped(sentence)]
    lines += ["", "What to look at before training", *_finding_lines(found)]
    if inspection.attributes:
        lines += ["", *_columns(*_attribute_rows(inspection))]
    if inspection.tags:
        lines += ["", *_columns(*_tag_rows(inspection))]
    return "\n".join([*lines, "", *_wrapped(_picture_sentence(inspection)), *_wrapped(_copies_sentence(inspection))])


def inspection_html(inspection: Inspection) -> str:
    """A self-contained page, below 5 MB however many pictures there are."""
    found = findings(inspection)
    items = "".join(f"<li><strong>{escape(one.what)}</strong> {escape(one.advice)}</li>\n" for one in found)
    stands_out = f"<ol>{items}</ol>" if found else f"<p>{_NOTHING}</p>"
    lead = f"<p>{escape(_summary(inspection))}</p>\n<h2>What to look at before training</h2>\n{stands_out}"
    sections = [
        _files_section(inspection),
        *_attribute_sections(inspection),
        *_tag_sections(inspection),
        _missing_section(inspection),
        _copies_section(inspection),
        _pictures_section(inspection),
    ]
    return page(f"Before training: {printable(os.path.basename(inspection.labels))}", lead, sections)


_NOTHING = "Nothing stands out."


def _summary(inspection: Inspection) -> str:
    columns = [(inspection.attributes, "attribute"), (inspection.tags, "tag")]
    kinds = " and ".join(counted(len(facts), noun) for facts, noun in columns if facts)
    rows = counted(len(inspection.names) + len(inspection.absent), "row")
    return (
        f"{printable(inspection.labels)}: {rows}, {counted(len(inspection.names), 'picture')} found, "
        f"{len(inspection.absent):,} absent, {len(inspection.pictures.broken):,} unreadable; {kinds}, "
        f"{inspection.known:,} of {inspection.cells:,} labels known ({_share(inspection.known, inspection.cells)})."
    )


# The terminal


def _finding_lines(found: Sequence[Finding]) -> list[str]:
    if not found:
        return [f"  {_NOTHING}"]
    lines = []
    for number, one in enumerate(found, start=1):
        lines += [*_wrapped(one.what, f"{number:>3}. "), *_wrapped(one.advice, "     → ")]
    return lines


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first rows, the first column to the left and the others to the right."""
    shown = [header, *rows[:_LINES]]
    widths = [min(max(len(row[column]) for row in shown), 40) for column in range(len(header))]
    lines = []
    for first, *others in shown:
        cells = [f"{first[: widths[0]]:<{widths[0]}}"]
        cells += [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines + ([f"... and {len(rows) - _LINES:,} more; --out FILE shows all."] if len(rows) > _LINES else [])


def _wrapped(sentence: str, lead: str = "") -> list[str]:
    """Lines of a sentence after a lead; paths and options such as --min-count stay whole."""
    wrapper = textwrap.TextWrapper(_WIDTH, lead, " " * len(lead), break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(sentence)


def _picture_sentence(inspection: Inspection) -> str:
    pictures = inspection.pictures
    if not len(pictures.sizes):
        return "Pictures: none can be read."
    (low_width, low_height), (high_width, high_height) = pictures.sizes.min(axis=0), pictures.sizes.max(axis=0)
    width, height = np.median(pictures.sizes, axis=0).astype(int)
    kinds = ", ".join(f"{name} {count:,}" for name, count in (*pictures.formats, *pictures.modes))
    return (
        f"Pictures: typically {width}×{height} pixels (widths {low_width} to {high_width}, heights {low_height} to "
        f"{high_height}), {_bytes(float(np.median(pictures.file_sizes)))} each; {kinds}."
    )


def _copies_sentence(inspection: Inspection) -> str:
    identical, similar = ([group for group in inspection.groups if group.identical is kind] for kind in (True, False))
    contradicting = sum(bool(group.conflicts) for group in inspection.groups)
    return (
        f"Copies: {counted(len(identical), 'group')} of identical files, {counted(len(similar), 'group')} of pictures "
        f"that look alike; {contradicting:,} with contradicting labels."
    )


# What terminal and page both show


def _attribute_rows(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    total = len(inspection.names)
    header = ["attribute", "present", "", "absent", "", "unknown", "", "present of known"]
    rows = []
    for facts in inspection.attributes:
        counts = (facts.positives, facts.negatives, facts.unknown)
        cells = [cell for count in counts for cell in (f"{count:,}", _share(count, total))]
        rows.append([printable(facts.name), *cells, _share(facts.positives, facts.known)])
    return header, rows


def _tag_rows(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    header = ["tag", "known", "", "classes", f"below {inspection.min_count}", "most frequent", ""]
    rows = []
    for facts in inspection.tags:
        largest, count = facts.counts[0]
        few = sum(number < inspection.min_count for _, number in facts.counts)
        known = [f"{facts.known:,}", _share(facts.known, len(inspection.names))]
        classes = [f"{len(facts.counts):,}", f"{few:,}", printable(largest), _share(count, facts.known)]
        rows.append([printable(facts.name), *known, *classes])
    return header, rows


def _share(part: int, whole: int) -> str:
    if not whole:
        return "n/a"
    text = f"{part / whole:.0%}"
    return {"0%": "<1%" if part else text, "100%": ">99%" if part < whole else text}.get(text, text)


def _bytes(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < 3:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {('B', 'kB', 'MB', 'GB')[unit]}"


# The page


class _Thumbnails:
    """Small pictures, until a section has used the room that it has."""

    def __init__(self, inspection: Inspection, section: str) -> None:
        self.inspection, self.left = inspection, _THUMBNAILS[section]

    def grid(self, pictures: Sequence[tuple[int, Sequence[str]]], caption: str) -> str:
        """Pictures by row, each with its lines; "" once there is no room."""
        shown = []
        for row, lines in pictures:
            if self.left > 0:
                source = thumbnail(self.inspection.table.images[row])
                self.left -= len(source or "") + _MARKUP
                shown.append(GridPicture(source, printable(self.inspection.names[row]), lines))
        return picture_grid(shown, caption) if shown else ""


def _files_section(inspection: Inspection) -> Section:
    pictures = inspection.pictures
    rows = [
        ["rows of the labels file", f"{len(inspection.names) + len(inspection.absent):,}"],
        ["pictures found", f"{len(inspection.names):,}"],
        ["pictures absent", f"{len(inspection.absent):,}"],
        ["files that cannot be read", f"{len(pictures.broken):,}"],
        ["attributes", f"{len(inspection.attributes):,}"],
        ["tags", f"{len(inspection.tags):,}"],
        ["known labels", f"{inspection.known:,}"],
        ["labels there could be", f"{inspection.cells:,}"],
    ]
    body = table(["what", "count"], rows, "What the labels file and its pictures hold") + "".join(
        note(text) for text in inspection.notes
    )
    if inspection.absent:
        absent = [[name] for name in inspection.absent]
        body += table(["picture"], absent, "Absent pictures, left out of everything below", max_rows=_LISTED)
    if pictures.broken:
        body += table(["picture", "reason"], pictures.broken, "Files that cannot be read", max_rows=_LISTED)
    return Section("files", "Rows and files", body)


def _attribute_sections(inspection: Inspection) -> Iterator[Section]:
    if not inspection.attributes:
        return
    header, rows = _attribute_rows(inspection)
    header = ["attribute", "present", "share", "absent", "share", "unknown", "share", "present of known"]
    body = table(header, rows, "How often each attribute is known, and what it says", max_rows=_ATTRIBUTES)
    thumbnails = _Thumbnails(inspection, "attributes")
    for column, facts in enumerate(inspection.attributes):
        labels = inspection.table.y[:, column]
        examples = [
            (row, [what])
            for value, what in ((1, "present"), (0, "absent"))
            for row in _some(inspection, labels == value)
        ]
        body += thumbnails.grid(examples, printable(facts.name))
    yield Section("attributes", "Attributes", body)
    if len(inspection.attributes) > 1:
        yield Section("together", "Attributes together", _together_body(inspection))


def _some(inspection: Inspection, wanted: np.ndarray, most: int = _EXAMPLES) -> list[int]:
    """A few readable pictures among those wanted, from all over the file."""
    rows = np.flatnonzero(wanted & inspection.pictures.readable)
    count = min(most, len(rows))
    return [int(rows[(2 * number + 1) * len(rows) // (2 * count)]) for number in range(count)]


def _together_body(inspection: Inspection) -> str:
    together = inspection.together
    phi, few, expected, known = together.phi, together.few, together.expected, together.known
    first, second = np.triu_indices(len(together.names), k=1)
    strength = np.nan_to_num(np.abs(phi[first, second]))
    order = np.lexsort((-strength, few[first, second]))  # what is certain first, then the strongest
    rows = []
    for a, b in zip(first[order], second[order], strict=True):
        cells = (known[a, b], together.both[a, b], together.only[a, b], together.only[b, a], together.neither[a, b])
        chance = "n/a" if math.isnan(expected[a, b]) else f"{expected[a, b]:,.1f}"
        sure = ("few" if few[a, b] else "") if known[a, b] else "never both known"
        names = [printable(together.names[a]), printable(together.names[b])]
        rows.append([*names, *(f"{count:,}" for count in cells), chance, _signed(phi[a, b]), sure])
    header = [
        "first",
        "second",
        "both known",
        "both",
        "only first",
        "only second",
        "neither",
        "both by chance",
        "phi",
        "",
    ]
    body = note(
        "Counted over the pictures where both attributes are known. Both by chance is what 'both' would be if the two "
        "had nothing to do with each other. Phi is their correlation: 1 if they always agree, 0 if neither tells "
        "anything of the other, -1 if they never agree. Where it says few, one of the four counts would be below 5 by "
        "chance, and phi may be chance as well."
    )
    everything = len(inspection.attributes)
    if len(together.names) < everything:
        body += note(f"Of the {everything:,} attributes, the {len(together.names)} with the most positives are here.")
    body += table(header, rows, "Pairs of attributes, the strongest first", max_rows=_LISTED)
    if len(together.names) > _PAIRS:
        counts = together.both[:_HEATMAP, :_HEATMAP] * ~np.eye(min(len(together.names), _HEATMAP), dtype=bool)
        names = [printable(name) for name in together.names[:_HEATMAP]]
        chart = heatmap("Both present", names, names, counts, row_title="attribute", column_title="present too")
        body += figure(chart, "In how many pictures the attributes of row and column are both present.")
    return body


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.2f}"


def _tag_sections(inspection: Inspection) -> Iterator[Section]:
    if not inspection.tags:
        return
    _, rows = _tag_rows(inspection)
    header = ["tag", "known", "share", "classes", f"classes below {inspection.min_count}", "most frequent", "its share"]
    body = table(header, rows, "How often each tag is known, and what it says", max_rows=_ATTRIBUTES)
    body += "".join(_tag_chart(inspection, facts) for facts in inspection.tags[:_TAGS])
    if len(inspection.tags) > _TAGS:
        body += note(f"Of the {len(inspection.tags):,} tags, the first {_TAGS} are drawn.")
    thumbnails = _Thumbnails(inspection, "tags")
    for column, facts in enumerate(inspection.tags):
        labels, classes = inspection.table.tag_y[:, column], inspection.table.tags[column].classes
        examples = [
            (row, [f"{printable(name)}: {count:,}"])
            for name, count in facts.counts[:_CLASS_EXAMPLES]
            for row in _some(inspection, labels == classes.index(name), 1)
        ]
        body += thumbnails.grid(examples, f"{printable(facts.name)}: a picture of each frequent class")
    yield Section("tags", "Tags", body)


def _tag_chart(inspection: Inspection, facts: TagFacts) -> str:
    names, counts = zip(*facts.counts[:_CLASSES], strict=True)
    chart = bar_chart(printable(facts.name), [printable(name) for name in names], counts, max_bars=25)
    few = [f"{name}: {count}" for name, count in facts.counts[::-1] if count < inspection.min_count]
    unknown = f"{facts.unknown:,} of {len(inspection.names):,} pictures unknown"
    text = f"{counted(facts.known, 'label')} in {counted(len(facts.counts), 'class')}; {unknown}."
    if few:
        text += f" Fewer than {inspection.min_count}: {listed(few, 8)}."
    if len(facts.counts) > _CLASSES:
        text += f" The {_CLASSES} most frequent classes are here."
    return figure(chart, text)


def _missing_section(inspection: Inspection) -> Section:
    missing, total = inspection.missing, len(inspection.names)
    known = [
        [f"{number:,}", f"{count:,}", _share(int(count), total)]
        for number, count in enumerate(missing.known_per_picture)
        if count
    ]
    body = table(
        ["known labels", "pictures", "share"],
        known,
        f"Of {len(missing.names):,} labels, how many a picture has",
        max_rows=_LISTED,
    )
    if inspection.known == inspection.cells:
        return Section("unknown", "Unknown labels", note("Every label is known."))
    patterns = [
        [listed(columns, 12) or "none", f"{len(columns):,}", f"{count:,}", _share(count, total)]
        for columns, count in missing.patterns
    ]
    body += table(
        ["unknown", "labels", "pictures", "share"],
        patterns,
        "Which labels are unknown in the same picture, exactly these",
    )
    if missing.more_patterns:
        body += note(f"And {counted(missing.more_patterns, 'rarer combination')}.")
    return Section("unknown", "Unknown labels", body + _missing_pairs(inspection))


def _missing_pairs(inspection: Inspection) -> str:
    missing, total = inspection.missing, len(inspection.names)
    alone = np.diag(missing.together)
    first, second = np.triu_indices(len(missing.names), k=1)
    both = missing.together[first, second]
    expected = alone[first] * alone[second] / total
    order = np.argsort(-np.abs(both - expected), kind="stable")
    rows = []
    for pair in order[:_LISTED]:
        a, b = first[pair], second[pair]
        if both[pair] or expected[pair] >= 1:
            counts = f"{alone[a]:,}", f"{alone[b]:,}", f"{both[pair]:,}", f"{expected[pair]:,.1f}"
            rows.append([printable(missing.names[a]), printable(missing.names[b]), *counts])
    if not rows:
        return note("No two labels are unknown in the same picture.")
    header = ["first", "second", "first unknown", "second unknown", "both unknown", "both by chance"]
    return table(header, rows, "Pairs of labels unknown together, the furthest from chance first")


def _copies_section(inspection: Inspection) -> Section:
    groups = sorted(inspection.groups, key=lambda group: (not group.conflicts, not group.identical, group.rows))
    if not groups:
        return Section("copies", "Copies", note("No file is there twice, and no two pictures look alike."))
    body = note(
        f"{_copies_sentence(inspection)} Pictures look alike where their outlines and colours are about the same: one "
        "is the other, saved again or resized, or the same photograph with a detail changed. Those whose labels "
        "contradict each other come first."
    )
    thumbnails, shown = _Thumbnails(inspection, "copies"), 0
    for group in groups[:_GROUPS]:
        grid = thumbnails.grid([(row, _said(group, row)) for row in group.rows[:_COPIES]], _group_caption(group))
        body, shown = body + grid, shown + bool(grid)
    if shown < len(groups):
        rows = [
            [", ".join(printable(inspection.names[row]) for row in group.rows[:_COPIES]), _group_caption(group)]
            for group in groups[shown:]
        ]
        body += table(["pictures", "what"], rows, "More copies, without pictures", max_rows=_LISTED)
    return Section("copies", "Copies", body)


def _group_caption(group: Group) -> str:
    what = "Identical files" if group.identical else "Look alike"
    if group.conflicts:
        what += f"; labels contradict on {listed([conflict.column for conflict in group.conflicts], 5)}"
    if len(group.parts) > 1:
        what += f"; in different parts: {', '.join(group.parts)}"
    more = len(group.rows) - _COPIES
    return what + (f" (and {more:,} more pictures)" if more > 0 else "")


def _said(group: Group, row: int) -> list[str]:
    return [
        f"{printable(conflict.column)}: {printable(word)}"
        for conflict in group.conflicts
        for where, word in conflict.said
        if where == row
    ][:_COPIES]


def _pictures_section(inspection: Inspection) -> Section:
    pictures = inspection.pictures
    if not len(pictures.sizes):
        return Section("pictures", "Pictures", note("No picture can be read."))
    widths, heights = pictures.sizes.T
    measures: list[tuple[str, np.ndarray]] = [("width, pixels", widths), ("height, pixels", heights)]
    measures += [("width / height", widths / heights), ("file size, kB", pictures.file_sizes / 1000)]
    rows = [
        [name, *(_figure(value) for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))] for name, values in measures
    ]
    body = table(["", "smallest", "5%", "typical", "95%", "largest"], rows, "Sizes of the pictures, upright")
    height, width = pictures.image_size
    body += note(
        f"Narrower or lower than {width}×{height} pixels, the size of the model's input: {pictures.smaller:,} of "
        f"{counted(len(pictures.sizes), 'picture')}. Of nearly one colour: {len(pictures.plain):,}"
        f"{': ' + listed(pictures.plain, 10) if pictures.plain else ''}."
    )
    for title, values in (("Width, pixels", widths), ("Height, pixels", heights)):
        body += figure(bar_chart(title, *_histogram(values)), "Pictures by size.")
    shapes = np.bincount(np.digitize(widths / heights, list(_SHAPES.values())), minlength=len(_SHAPES))
    body += figure(
        bar_chart("Width : height", list(_SHAPES), shapes), "Every picture is stretched to the model's input."
    )
    body += figure(bar_chart("File size, kB", *_histogram(pictures.file_sizes // 1000)), "Pictures by size of file.")
    body += table(["mode", "pictures"], _named(pictures.modes, _MODES), "How the files store colours")
    body += table(["format", "pictures"], _named(pictures.formats, {}), "Formats of the files")
    return Section("pictures", "Pictures", body)


_MODES = {"L": "grey", "LA": "grey with transparency", "RGB": "colour", "RGBA": "colour with transparency"}
_MODES |= {"P": "palette", "1": "black and white", "CMYK": "colour for print", "I;16": "16-bit grey"}


def _named(counts: Iterable[tuple[str, int]], words: dict[str, str]) -> list[list[str]]:
    return [[f"{name} ({words[name]})" if name in words else name, f"{count:,}"] for name, count in counts]


def _histogram(values: np.ndarray, most: int = 12) -> tuple[list[str], np.ndarray]:
    """Labels and counts: of every value where they are few, else of ranges, each by the same factor wider."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= most:
        return [f"{value:,}" for value in distinct], counts
    edges = np.unique(np.round(np.geomspace(max(distinct[0], 1), distinct[-1] + 1, most + 1)).astype(np.int64))
    edges[0] = distinct[0]
    counts, _ = np.histogram(values, edges)
    ranges = [(low, high - 1) for low, high in pairwise(edges.tolist())]
    return [f"{low:,} to {high:,}" if high > low else f"{low:,}" for low, high in ranges], counts


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"
