"""What holds for the project as a whole: floors, public names, documentation, start-up."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import multilabel
from multilabel import config
from multilabel.cli import main
from multilabel.losses import missing

FLOORS = [
    {
        "errors",
        "config",
        "columns",
        "formats",
        "labels",
        "splits",
        "images",
        "places",
        "processors",
        "streams",
        "writing",
    },
    {
        "metrics.masked",
        "metrics.single",
        "thresholds",
        "calibration",
        "description",
        "sidecar",
        "label_errors",
        "matching",
        "duplicates",
        "page",
        "charts",
        "charts.bars",
        "charts.heatmaps",
        "charts.lines",
        "charts.svg",
    },
    {
        "losses",
        "losses.asl",
        "losses.bce",
        "losses.binary",
        "losses.categorical",
        "losses.cells",
        "losses.epochs",
        "losses.hill",
        "losses.missing",
        "losses.splc",
        "metrics.curves",
        "metrics.streaming",
        "heads",
        "backbones",
        "folding",
        "augment",
    },
    {
        "engine",
        "features",
        "checkpoints",
        "networks",
        "slabs",
        "convex",
        "training",
        "head_training",
        "stopping",
        "bundle",
    },
    {
        "crossfit",
        "held_out",
        "measuring",
        "permutation",
        "inference",
        "runtimes",
        "export",
        "export_check",
        "quantization",
        "tuning",
        "explain",
        "sheet",
        "evaluation",
        "report",
        "tables",
        "dataset",
        "distributed",
        "distributed.embedded",
        "distributed.embedding",
        "distributed.job",
        "distributed.local",
        "distributed.predicting",
        "distributed.ray_data",
        "distributed.sources",
        "distributed.worker",
        "phases",
        "findings",
        "inspection",
        "inspection_page",
        "report_page",
        "report_page.cells",
        "report_page.classes",
        "report_page.curves",
        "report_page.learning",
        "report_page.pictures",
        "report_page.scores",
        "report_page.words",
        "server",
        "server.about",
        "server.answers",
        "server.app",
        "server.batcher",
        "server.limits",
        "server.manual",
        "server.process",
        "server.service",
        "server.uploads",
        "server.watch",
    },
    # `metrics` is a door: it imports when a name is used
    {"pipeline", "cli", "options", "parameters", "terminal", "__main__", "__init__", "metrics"},
]
PACKAGE = Path(multilabel.__file__).parent
FLOOR_OF = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
MODULES = sorted(FILES)
PUBLIC = [
    "UNKNOWN",
    "CnnShape",
    "FitConfig",
    "LabelTable",
    "LossEpochs",
    "MaskedASL",
    "MaskedBCE",
    "MaskedHill",
    "MaskedSPLC",
    "MaskedSparseCategoricalCrossentropy",
    "Missing",
    "MultilabelError",
    "evaluate_bundle",
    "fit",
    "load_bundle",
    "masked_asl",
    "masked_bce",
    "masked_hill",
    "masked_sparse_categorical_crossentropy",
    "masked_splc",
    "predict",
    "read_labels",
]


def imports_of(module: str) -> set[str]:
    """The package's own modules that a module imports, wherever in the file."""
    folder = FILES[module].parent.relative_to(PACKAGE).parts
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = [*folder[: len(folder) - node.level + 1], *(node.module or "").split(".")]
            imported = ".".join(part for part in start if part)
            inside = {f"{imported}.{alias.name}".lstrip(".") for alias in node.names} & set(MODULES)
            found |= inside or ({imported} & set(MODULES))
    return found


def test_every_module_has_a_floor() -> None:
    assert set(MODULES) == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted({module for module in MODULES if "." not in module} - {"metrics"}))
def test_contributing_shows_the_floor_of_every_file(module: str, root: Path) -> None:
    rows = (root / "CONTRIBUTING.md").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith(f"| {FLOOR_OF[module]} |")]
    assert f"`{module}.py`" in row or f"`{module}/`" in row


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_only_downwards(module: str) -> None:
    above = {name for name in imports_of(module) if FLOOR_OF[name] > FLOOR_OF[module]}
    assert not above


def test_imports_have_no_cycle() -> None:
    left = {module: imports_of(module) for module in MODULES}
    while left:
        free = {module for module, needed in left.items() if not needed & set(left)}
        assert free, f"a cycle among {sorted(left)}"
        left = {module: needed for module, needed in left.items() if module not in free}


def test_losses_can_be_lifted_out() -> None:
    for module in MODULES:
        if module.partition(".")[0] == "losses":
            assert all(imported.partition(".")[0] == "losses" for imported in imports_of(module))


def test_the_names_of_options_are_those_of_the_losses() -> None:
    assert config.MISSING == missing.METHODS


def test_public_names_are_pinned_and_exist() -> None:
    assert multilabel.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(multilabel, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = multilabel.nothing


def test_every_public_name_has_a_docstring() -> None:
    for name in PUBLIC:
        if name != "UNKNOWN":
            assert getattr(multilabel, name).__doc__


def test_readme_documents_every_command_and_option(root: Path) -> None:
    readme = (root / "README.md").read_text()
    for name, command in main.commands.items():
        assert f"multilabel {name}" in readme
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}" in readme, f"{name} {parameter.opts[0]} is not in README.md"


def test_readme_documents_every_public_name(root: Path) -> None:
    documented = (root / "README.md").read_text() + (root / "docs" / "losses.md").read_text()
    assert [name for name in PUBLIC if f"`{name}`" not in documented] == []


def test_readme_is_short_enough_to_read(root: Path) -> None:
    assert len((root / "README.md").read_text().splitlines()) <= 400


def test_metadata_stands_in_setup_cfg_alone(root: Path) -> None:
    assert "[project]" not in (root / "pyproject.toml").read_text()
    metadata = configparser.ConfigParser()
    metadata.read(root / "setup.cfg")
    assert metadata["metadata"]["license_expression"] == "Apache-2.0"
    assert f"## {multilabel.__version__}" in (root / "CHANGELOG.md").read_text()


def test_importing_the_loss_brings_in_keras_alone() -> None:
    # Keras itself may load some of these, so what it loads is taken away.
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "from multilabel import masked_bce\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(' '.join(sorted(new & {'pandas', 'sklearn', 'PIL', 'matplotlib', 'click', 'tqdm', 'platformdirs'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_private_is_in_the_repository(root: Path) -> None:
    files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.splitlines():
        path = root / name
        if path.suffix in {".py", ".md", ".cfg", ".toml", ".txt", ".csv", ""} and path.is_file():
            assert not re.search(r"/home/\w|/Users/\w|/root/\w", path.read_text(errors="replace")), name
