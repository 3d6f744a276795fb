"""Take the backbone out of a bundle and write it as the weights that `--backbone cnn` comes with.

sh examples/train_embedded_cnn.sh --labels styles.csv --out model
python examples/embed_cnn.py model multilabel/weights/cnn.npz
"""

from __future__ import annotations

from pathlib import Path

import click

from multilabel.backbones import save_embedded
from multilabel.bundle import load_backbone


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
def main(bundle: Path, file: Path) -> None:
    """Write the float16 weights of the cnn in BUNDLE to FILE."""
    save_embedded(load_backbone(bundle), file)
    click.echo(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
