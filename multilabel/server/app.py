"""The paths of the server: predictions, the model, its health, its numbers, and the page."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..page import style
from . import answers
from .limits import Refusal
from .manual import manual
from .service import Service
from .uploads import FIELD, FORM, JSON, Body, Holdings, JsonPictures, read_uploads
from .watch import Numbers, Watch

_STATIC = files("multilabel.server") / "static"
_KEY_HEADER = "X-API-Key"
_FILES_SCHEMA = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {
        FIELD: {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "One or more pictures: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
        }
    },
}
# The smallest picture there is, to try things with: one white pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
Explain = Annotated[
    str | None, Query(description="An attribute or tag: where its evidence lies comes along, to lay over each picture.")
]
# The page asks for it: a browser remarks on every 422 in its console.
Tolerant = Annotated[bool, Query(description="Answer 200, not 422, even if no picture can be read.")]
_KEY_SCHEME = APIKeyHeader(name=_KEY_HEADER, auto_error=False)
_REFUSALS = {
    400: "The request is broken.",
    401: "The key is missing or wrong.",
    408: "The request took too long to arrive.",
    413: "There is too much of something.",
    415: "It is no form and no JSON.",
    422: "It cannot be understood, or no picture could be predicted.",
    503: "There is more to do than can wait; ask again after `Retry-After` seconds.",
}


def create_app(
    service: Service,
    numbers: Numbers,
    about: Mapping[str, Any],
    *,
    key: str | None = None,
    origins: Sequence[str] = (),
) -> FastAPI:
    """The application, as ASGI servers run it.

    Args:
        service: what answers.
        numbers: what is counted.
        about: what `/model` tells.
        key: that has to come with every question; `None`: none.
        origins: of other sites whose pages may ask.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="multilabel",
        summary=f"Predictions of the model {about['run_name']}.",
        version=__version__,
        lifespan=running,
        docs_url=None,  # FastAPI's own page loads what it shows from another host
        redoc_url=None,
    )
    _add_pages(app)
    _add_state(app, service, numbers)
    _add_questions(app, service, numbers, about, key)
    _add_refusals(app)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=[_KEY_HEADER, "Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    paths = frozenset({"/", "/page.css", "/page.js", "/docs", "/openapi.json", *app.openapi()["paths"]})
    app.add_middleware(Watch, numbers=numbers, paths=paths)
    return app


def _add_pages(app: FastAPI) -> None:
    """What a browser shows; nothing of it is secret."""
    page = (_STATIC / "index.html").read_text(encoding="utf-8")
    script = (_STATIC / "page.js").read_text(encoding="utf-8")
    styles = style() + (_STATIC / "page.css").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/page.css", include_in_schema=False)
    async def page_css() -> Response:
        return Response(styles, media_type="text/css")

    @app.get("/page.js", include_in_schema=False)
    async def page_js() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(manual(app.openapi()), headers={"Content-Security-Policy": policy})


def _add_state(app: FastAPI, service: Service, numbers: Numbers) -> None:
    """What watches over servers asks."""

    @app.get("/healthz", tags=["state"], response_model=answers.State)
    async def healthz() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "alive"}

    @app.get(
        "/readyz",
        tags=["state"],
        response_model=answers.State,
        responses={503: {"model": answers.Error, "description": "It is still warming up."}},
    )
    async def readyz() -> dict[str, str]:
        """Whether the model is warm: pictures of nothing have gone through it in every size of batch."""
        if service.unready:
            raise Refusal(503, service.unready)
        return {"status": "ready"}


def _add_questions(app: FastAPI, service: Service, numbers: Numbers, about: Mapping[str, Any], key: str | None) -> None:
    """What needs the key, if there is one."""
    holdings = Holdings()

    async def with_key(request: Request) -> None:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = request.headers.get(_KEY_HEADER) or (bearer if scheme.lower() == "bearer" else "")
        if key is not None and not hmac.compare_digest(given.encode("utf-8"), key.encode("utf-8")):
            raise Refusal(401, f"The key is missing or wrong; send it in the header {_KEY_HEADER}.")

    guarded = [Depends(with_key)] + ([] if key is None else [Security(_KEY_SCHEME)])  # which the document tells
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.Error, "description": text} for status, text in _REFUSALS.items()
    }

    @app.post(
        "/predict",
        tags=["predictions"],
        dependencies=guarded,
        response_model=answers.Predictions,
        responses=refusals,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    FORM: {"schema": _FILES_SCHEMA},
                    JSON: {"schema": _json_schema(), "example": {FIELD: [{"name": "white.png", "data": _PIXEL}]}},
                },
            }
        },
    )
    async def predict(request: Request, explain: Explain = None, tolerant: Tolerant = False) -> Response:
        """Predicts one or many pictures: files of a form, or base64 in JSON.

        A picture that cannot be read has an `error` and does not fail its neighbours.
        """
        with Body(request, service.limits, holdings) as body:
            uploads = await read_uploads(body)
            pictures = await service.predict(uploads, explain)
        broken = sum(picture["error"] is not None for picture in pictures)
        numbers.pictures.labels("predicted").inc(len(pictures) - broken)
        numbers.pictures.labels("unreadable").inc(broken)
        request.state.said = {"pictures": len(pictures), "unreadable": broken}
        if broken == len(pictures) and not tolerant:
            raise Refusal(422, _none_readable(pictures), pictures)
        return JSONResponse({"pictures": pictures})

    @app.get(
        "/model",
        tags=["model"],
        dependencies=guarded,
        response_model=answers.Model,
        responses={401: refusals[401]},
    )
    async def model() -> Response:
        """What the model knows, its thresholds, and what `fit` measured."""
        return JSONResponse(dict(about))

    @app.get(
        "/metrics",
        tags=["state"],
        dependencies=guarded,
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: refusals[401]},
    )
    async def metrics() -> Response:
        """Numbers for Prometheus: requests, their time, pictures, sizes of batches, how many wait."""
        return Response(generate_latest(numbers.registry), media_type=CONTENT_TYPE_LATEST)


def _none_readable(pictures: Sequence[Mapping[str, Any]]) -> str:
    first = pictures[0]["error"]
    if len(pictures) == 1:
        return f"The picture cannot be read: {first}."
    return f"None of the {len(pictures)} pictures can be read; the first: {first}."


def _json_schema() -> dict[str, Any]:
    """What JSON may be sent, in one piece: references would lead out of the OpenAPI document."""
    schema = JsonPictures.model_json_schema()
    schema["properties"][FIELD]["items"] = schema.pop("$defs")["JsonPicture"]
    return schema


def _add_refusals(app: FastAPI) -> None:
    """Every refusal is one sentence in JSON."""

    def refused(request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
        said: dict[str, Any] = {"error": refusal.reason, "request_id": request.state.request_id}
        if refusal.pictures is not None:
            said["pictures"] = refusal.pictures
        more = {"Retry-After": "1"} if refusal.status == 503 else {}
        if refusal.status in (408, 413):  # the rest of the body is not waited for
            more["Connection"] = "close"
        return JSONResponse(said, refusal.status, {**(headers or {}), **more})

    @app.exception_handler(Refusal)
    async def refusal(request: Request, error: Refusal) -> Response:
        return refused(request, error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        sentence = {404: "There is nothing at this path; see /docs.", 405: "This path takes another method; see /docs."}
        reason = sentence.get(error.status_code, f"{error.detail}.")
        return refused(request, Refusal(error.status_code, reason), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return refused(request, Refusal(422, f"The request cannot be used: {where}: {first['msg']}."))
