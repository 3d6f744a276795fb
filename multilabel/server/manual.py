"""The page at `/docs`: the OpenAPI document for people, without a script and without another host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..charts import escape
from ..page import Section, page, table

_EXAMPLES = {
    "/predict": (
        "curl --form files=@photo.jpg --form files=@other.jpg http://127.0.0.1:8000/predict",
        "curl --form files=@photo.jpg 'http://127.0.0.1:8000/predict?explain=ATTRIBUTE'",
    ),
}


def manual(document: Mapping[str, Any]) -> str:
    """An HTML page.

    Args:
        document: what `FastAPI.openapi` returns.
    """
    sections = [
        _section(path, method, said) for path, methods in document["paths"].items() for method, said in methods.items()
    ]
    schemas = document["components"]["schemas"]
    sections += [_schema(name, said) for name, said in schemas.items() if not name.startswith(("HTTPV", "ValidationE"))]
    lead = (
        f"<p>{escape(document['info']['summary'])} For programs: <a href='/openapi.json'>openapi.json</a>. "
        "To try it: <a href='/'>the page</a>.</p>"
    )
    return page("multilabel: the API", lead, sections)


def _section(path: str, method: str, said: Mapping[str, Any]) -> Section:
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in said["description"].split("\n\n"))
    examples = _EXAMPLES.get(path, (f"curl http://127.0.0.1:8000{path}",))
    code = "".join(f"<pre><code>{escape(example)}</code></pre>" for example in examples)
    parameters = [[asked["name"], asked["in"], asked.get("description", "")] for asked in said.get("parameters", [])]
    options = table(["parameter", "in", "what it is"], parameters, "Parameters") if parameters else ""
    bodies = "".join(
        f"<p>{escape(kind)}, for example:</p><pre><code>{escape(json.dumps(body['example'], indent=2))}</code></pre>"
        for kind, body in said.get("requestBody", {}).get("content", {}).items()
        if "example" in body
    )
    answers = [[status, answer["description"], _name(answer)] for status, answer in sorted(said["responses"].items())]
    answered = table(["status", "when", "what is answered"], answers, "Answers")
    anchor = f"{method}{path.replace('/', '-')}"
    return Section(anchor, f"{method.upper()} {path}", text + code + bodies + options + answered)


def _name(answer: Mapping[str, Any]) -> str:
    """What an answer's schema is called, or its content type."""
    kinds: Mapping[str, Any] = answer.get("content", {})
    references = [content.get("schema", {}).get("$ref", "") for content in kinds.values()]
    return next(filter(None, (reference.rpartition("/")[2] for reference in references)), ", ".join(kinds))


def _schema(name: str, said: Mapping[str, Any]) -> Section:
    rows = [[field, _kind(about), about.get("description", "")] for field, about in said["properties"].items()]
    text = f"<p>{escape(said.get('description', ''))}</p>"
    return Section(f"schema-{name}", name, text + table(["field", "kind", "what it is"], rows, f"Fields of {name}"))


def _kind(about: Mapping[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(map(_kind, about["anyOf"]))
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    if "items" in about:
        return f"list of {_kind(about['items'])}"
    kind, inner = str(about.get("type", "anything")), about.get("additionalProperties")
    return f"{kind} of {_kind(inner)}" if isinstance(inner, dict) and inner else kind
