"""What happens around every request: an id, headers, a line in the log without pictures, numbers for Prometheus."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A browser loads and runs nothing that is not from here, whatever a file or an attribute is called.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("multilabel.requests")


class Numbers:
    """What `/metrics` tells, of one server.

    Args:
        waiting: how many pictures are in the house.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("multilabel_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "multilabel_request_seconds",
            "Time from a request's header to the end of its answer.",
            ["path"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.pictures = Counter("multilabel_pictures", "Pictures looked at.", ["outcome"], registry=self.registry)
        self.batches = Histogram(
            "multilabel_batch_size",
            "Pictures that went through the model together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        queue = Gauge("multilabel_pictures_waiting", "Pictures decoded, waiting or computed.", registry=self.registry)
        queue.set_function(waiting)


class Watch:
    """Middleware around everything else.

    Args:
        app: everything else.
        numbers: what is counted.
        paths: the paths that are counted by name; all others together.
    """

    def __init__(self, app: ASGIApp, numbers: Numbers, paths: frozenset[str]) -> None:
        self._app, self._numbers, self._paths = app, numbers, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, started_to_answer = 500, False

        async def send_marked(message: Message) -> None:
            nonlocal status, started_to_answer
            if message["type"] == "http.response.start":
                started_to_answer = True
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        said: dict[str, object] = {}
        try:
            await self._app(scope, receive, send_marked)
        except Exception as error:  # ours; who asked learns no more of it than that
            said["error"] = f"{type(error).__name__}: {error}"
            said["traceback"] = traceback.format_exception(error)
            if not started_to_answer:
                sentence = "The server failed; its log says more under this request_id."
                failed = JSONResponse({"error": sentence, "request_id": request_id}, 500)
                await failed(scope, receive, send_marked)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            seconds = time.perf_counter() - started
            self._numbers.requests.labels(path, str(status)).inc()
            self._numbers.seconds.labels(path).observe(seconds)
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": request_id,
                "method": scope["method"],
                "path": path,
                "status": status,
                "seconds": round(seconds, 4),
                **scope["state"].get("said", {}),
                **said,
            }
            _log.info(json.dumps(line))
