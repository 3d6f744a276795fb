"""`serve`: a model behind HTTP, for programs and, on a page, for people. Pictures stay in memory.

What a request goes through: `watch.py` → `app.py` → `uploads.py` (its body) → `service.py` → `batcher.py`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError, UsageError
from ..inference import Model
from ..runtimes import Exported
from .limits import Limits

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httptools")


def check_installed() -> None:
    """Makes sure that what serves is installed.

    Raises:
        UsageError: it is not; the text says how to install it.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(
            f"serve needs {', '.join(missing)}, not installed here; install with `pip install 'multilabel[serve]'`."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that nobody else has.

    Raises:
        UsageError: it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        known = not isinstance(error, socket.gaierror) and error.errno  # else the text says it best
        reason = os.strerror(known) if known else error.strerror
        raise UsageError(f"--host {host} --port {port} cannot be listened on ({reason}); choose others.") from error


def url_of(listening: socket.socket) -> str:
    """Where a browser finds what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def read_key(path: Path) -> str:
    """The key in a file: its one line.

    Raises:
        DataError: the file cannot be read, or its line is no key.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII text"
        raise DataError(
            f"--api-key-file {path} cannot be read ({reason}); give a file with one line, the key."
        ) from error
    if len(key) < 16 or not key.isprintable() or " " in key:
        raise DataError(
            f"--api-key-file {path}: expected one line of 16 or more letters and digits, such as "
            "`openssl rand -hex 32` prints."
        )
    return key


def serve(
    path: Path,
    model: Model,
    listening: socket.socket,
    limits: Limits,
    *,
    min_confidence: float = 0.0,
    key: str | None = None,
    origins: Sequence[str] = (),
) -> bool:
    """Answers until SIGTERM or Ctrl-C, and then what was accepted before; a second one ends it at once.

    Args:
        path: the bundle, or the export of one.
        model: what it was loaded as.
        listening: from `listen`.
        limits: what a request may bring.
        min_confidence: a tag whose best class is less probable is undecided.
        key: that has to come with every question; `None`: none.
        origins: of other sites whose pages may ask.

    Returns:
        Whether all that was accepted was answered.
    """
    import uvicorn

    from .about import about
    from .app import create_app
    from .process import Protocol, Server
    from .service import Service
    from .watch import Numbers

    numbers = Numbers(lambda: service.batcher.taken)
    service = Service(model, limits, min_confidence, not isinstance(model, Exported), numbers.batches.observe)
    told = about(path, model, limits, service.explains)
    app = create_app(service, numbers, told, key=key, origins=origins)
    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 5,  # as long as a request may take
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server = Server(config)
    server.run(sockets=[listening])
    return not server.force_exit
