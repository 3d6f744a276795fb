"""The door of `multilabel` and `python -m multilabel`."""

from .cli import main

if __name__ == "__main__":
    main()
