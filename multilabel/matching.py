"""Labels of a file as a model has them: its attributes, its tags and their classes, in its order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from .errors import DataError
from .formats import read_labels, unnamed
from .labels import LabelTable, Tag, align

_log = logging.getLogger("multilabel")


class Knows(Protocol):
    """A model, as far as its labels go."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of all attributes."""

    @property
    def tags(self) -> tuple[Tag, ...]:
        """All tags with their classes."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Its `settings` say how its own labels were read, its `rare_classes` which ones were pooled."""


def labels_for(model: Knows, labels: Path) -> LabelTable:
    """The labels of a file as a model knows them; whether there are pictures does not matter.

    Raises:
        MultilabelError: the labels cannot be used, or have nothing to do with the model.
    """
    return matched(model, labels, read_labels(labels, **columns(model)))


def columns(model: Knows) -> dict[str, Any]:
    """Which columns of a labels file are the model's tags and attributes."""
    attributes = model.provenance.get("settings", {}).get("attributes")
    return {
        "tags": tuple(tag.name for tag in model.tags),
        "attributes": attributes if attributes is None else tuple(attributes),
    }


def matched(model: Knows, labels: Path, table: LabelTable) -> LabelTable:
    """The labels that were read from a file as the model has them; says what is left out.

    Raises:
        DataError: nothing is left.
    """
    settings, rare = model.provenance.get("settings", {}), model.provenance.get("rare_classes", {})
    into = settings.get("pool_name") if settings.get("rare") == "pool" else None
    pooled = {tag: dict.fromkeys(classes, into) for tag, classes in rare.items()} if into else {}
    given = settings.get("names") or ()
    if len(given) == len(table.names) and not set(given) & set(table.names):
        if table.names != unnamed(len(given)):
            taken = ", ".join(f"{name} as {own}" for own, name in zip(given, table.names, strict=True))
            _log.warning(f"{labels} names its attributes otherwise than the model; in their order, {taken}.")
        table = replace(table, names=tuple(given))
    aligned, strange = align(table, model.attributes, model.tags, pooled)
    has = {*table.names, *(tag.name for tag in table.tags)}
    knows = [*model.attributes, *(tag.name for tag in model.tags)]
    if not has & set(knows):
        raise DataError(f"{labels}: has {', '.join(sorted(has))}, but the model knows {', '.join(knows)}.")
    if absent := [name for name in knows if name not in has]:
        _log.warning(f"Not in {labels}, so not measured: {', '.join(absent)}.")
    if unknown := sorted(has - set(knows)):
        _log.info(f"Left out, because the model does not know them: {', '.join(unknown)}.")
    if strange := {name: count for name, count in strange.items() if count}:
        listed = ", ".join(f"{name} {count}" for name, count in strange.items())
        _log.warning(f"Labels of classes that the model does not know count as unknown: {listed}.")
    return aligned
