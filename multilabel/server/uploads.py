"""The body of a request → pictures by name, kept in memory alone, within limits that hold while it arrives."""

from __future__ import annotations

import asyncio
import base64
import binascii
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .limits import MEGABYTE, Limits, Refusal, busy

FORM, JSON = "multipart/form-data", "application/json"
FIELD = "files"
_PARTS = 100  # braces, brackets and commas that a picture in JSON may have; base64 has none


@dataclass(frozen=True)
class Upload:
    """One picture as it came.

    Attributes:
        name: what it is called.
        data: its bytes.
    """

    name: str
    data: bytes


class JsonPicture(BaseModel):
    """One picture in JSON."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field("", description="What the answer calls it.", examples=["photo.jpg"])
    data: str = Field(description="The file in base64.", json_schema_extra={"format": "byte"})


class JsonPictures(BaseModel):
    """Pictures in JSON."""

    model_config = ConfigDict(extra="forbid")
    files: list[JsonPicture] = Field(min_length=1, description="One or more pictures.")


class Holdings:
    """Bytes of bodies that are in the house."""

    def __init__(self) -> None:
        self.bytes = 0


async def read_uploads(body: Body) -> list[Upload]:
    """The pictures of a request.

    Raises:
        Refusal: there are none, it is too much of something, takes too long, or is not what it says it is.
    """
    limits = body.limits
    kind = body.headers.get("content-type", "").partition(";")[0].strip().lower()
    read = {FORM: _read_form, JSON: _read_json}.get(kind)
    if read is None:
        raise Refusal(415, f"The content type is {kind or 'not said'}; send pictures as {FORM} or {JSON}.")
    try:
        async with asyncio.timeout(limits.seconds):
            uploads = await read(body)
    except TimeoutError:
        raise Refusal(408, f"The request took longer than {limits.seconds:g} seconds to arrive; send less.") from None
    except ClientDisconnect:
        raise Refusal(400, "The connection was closed before the request was complete.") from None
    if not uploads:
        raise Refusal(422, f"There is no picture in the field {FIELD}; add one or more files.")
    if len(uploads) > limits.files:
        raise _too_many(limits)
    return uploads


class Body:
    """The bytes of a request as they arrive; a context in which they count as being in the house.

    Args:
        request: the request.
        limits: what it may bring.
        holdings: of all requests.
    """

    def __init__(self, request: Request, limits: Limits, holdings: Holdings) -> None:
        self.headers, self.limits = request.headers, limits
        self._request, self._holdings = request, holdings
        self._held = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._holdings.bytes -= self._held

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes, piece by piece.

        Raises:
            Refusal: there are too many of them, or too many of all requests.
        """
        said = self.headers.get("content-length", "0")
        self._check(int(said) if said.isdecimal() else 0)
        async for chunk in self._request.stream():
            self._check(self._held + len(chunk))
            if self._holdings.bytes + len(chunk) > max(self.limits.held_bytes, self.limits.body_bytes):
                raise busy()
            self._held += len(chunk)
            self._holdings.bytes += len(chunk)
            yield chunk

    def _check(self, size: int) -> None:
        if size > self.limits.body_bytes:
            limit = self.limits.body_bytes / MEGABYTE
            raise Refusal(413, f"The request has more than {limit:g} MB; send fewer pictures, or smaller ones.")


class _InMemory(MultiPartParser):
    """Writes nothing to disk, and knows whether the form was complete."""

    spool_max_size = sys.maxsize
    complete = False

    def on_end(self) -> None:
        self.complete = True


async def _read_form(body: Body) -> list[Upload]:
    if b"charset" in parse_options_header(body.headers["content-type"])[1]:  # Starlette would decode names with it
        raise Refusal(422, "The form names a charset; leave it out, names are in UTF-8.")
    parser = _InMemory(body.headers, body.chunks(), max_files=body.limits.files, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(body.limits) from None
        if "Too many fields" in error.message:
            raise Refusal(422, f"A part of the form is no file; send files alone, in the field {FIELD}.") from None
        raise Refusal(422, f"The form cannot be read ({error.message.rstrip('.')}); is it {FORM}?") from None
    if not parser.complete:
        raise Refusal(422, "The form ends too soon; send it whole.")
    uploads = []
    for field, file in form.multi_items():
        if field != FIELD or not isinstance(file, UploadFile):
            raise Refusal(422, f"The form has a field {field!r}; send files alone, in the field {FIELD}.")
        uploads.append(Upload(_sendable(file.filename or ""), await file.read()))
        await file.close()
    return uploads


async def _read_json(body: Body) -> list[Upload]:
    data = b"".join([chunk async for chunk in body.chunks()])
    if sum(map(data.count, (b"{", b"[", b","))) > _PARTS * body.limits.files:  # parsed, small ones take gigabytes
        raise _too_many(body.limits)
    return await asyncio.to_thread(_from_json, data, body.limits)  # of a large one it takes long, and others wait


def _from_json(data: bytes, limits: Limits) -> list[Upload]:
    try:
        asked = JsonPictures.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(422, f"The JSON cannot be used: {where}: {first['msg']}.") from None
    if len(asked.files) > limits.files:
        raise _too_many(limits)
    return [Upload(picture.name, _decoded(picture.data, number)) for number, picture in enumerate(asked.files)]


def _decoded(text: str, number: int) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # many programs write it in lines
    except (binascii.Error, ValueError):
        raise Refusal(
            422,
            f"The JSON cannot be used: files.{number}.data: is not base64; send that alone, without `data:`.",
        ) from None


def _sendable(name: str) -> str:
    """The name without what no JSON can hold."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, f"The request has more than {limits.files} files; send them in several requests.")
