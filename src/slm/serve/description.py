"""`/openapi.json`: what can be asked and what is answered, made of the types that check and write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

import slm
from slm.serve import answers, bodies

_REFS = "#/components/schemas/{model}"
_JSON = "application/json"
_REFUSALS = {
    "400": "What was asked for is not allowed, or not possible",
    "401": "The key is missing or wrong",
    "403": "Asked by another name, or from a page of another place",
    "404": "There is no such model",
    "408": "The body took too long",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "429": "Too many texts wait; Retry-After says when to try again",
    "500": "A fault of the server",
    "503": "No row became free in time",
}
_OF_ALL = ("401", "403")


def described(has_key: bool) -> Mapping[str, Any]:
    """The description; where the server `has_key`, with it."""
    schemas: dict[str, Any] = {}
    paths = {
        "/v1/models": {"get": _read("The models that are served", answers.Models, schemas)},
        "/v1/models/{name}": {"get": _named(schemas)},
        "/v1/completions": {"post": _asked("Go on with texts", bodies.CompletionAsked, answers.Completion, schemas)},
        "/v1/chat/completions": {"post": _asked("Answer messages", bodies.ChatAsked, answers.Chat, schemas)},
        "/tokenize": {"post": _asked("A text's ids", bodies.TokenizeAsked, answers.Tokenized, schemas, False)},
        "/detokenize": {"post": _asked("The text of ids", bodies.DetokenizeAsked, answers.Detokenized, schemas, False)},
        "/tokenizer_info": {"get": _info(schemas)},
        "/health": {"get": _read("Whether it answers", answers.Health, schemas, open_to_all=True)},
        "/metrics": {"get": _text("Counts and times, for Prometheus", "text/plain")},
    }
    components: dict[str, Any] = {"schemas": schemas}
    security = {}
    if has_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        security = {"security": [{"key": []}]}
    info = {"title": "slm-serve", "version": slm.__version__, "description": "Language models in OpenAI's shapes."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components, **security}


def _schema(kind: Any, schemas: dict[str, Any], mode: Any = "serialization") -> dict[str, Any]:
    """What stands for a type; what it is made of goes to `schemas`."""
    found = TypeAdapter(kind).json_schema(ref_template=_REFS, mode=mode)
    schemas.update(found.pop("$defs", {}))
    name = kind.__name__
    schemas[name] = found
    return {"$ref": _REFS.format(model=name)}


def _read(summary: str, kind: Any, schemas: dict[str, Any], open_to_all: bool = False) -> dict[str, Any]:
    """A GET that answers a type."""
    answered = {"200": _answered("As asked", _schema(kind, schemas)), **_refusals(_OF_ALL, schemas)}
    return {"summary": summary, "responses": answered, **({"security": []} if open_to_all else {})}


def _named(schemas: dict[str, Any]) -> dict[str, Any]:
    found = _read("One of them", answers.Model, schemas)
    found["responses"] |= _refusals(("404",), schemas)
    parameter = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {**found, "parameters": [parameter]}


def _info(schemas: dict[str, Any]) -> dict[str, Any]:
    found = _read("Special tokens and chat template", answers.TokenizerInfo, schemas)
    found["responses"] |= _refusals(("404",), schemas)
    return {**found, "parameters": [{"name": "model", "in": "query", "schema": {"type": "string"}}]}


def _text(summary: str, kind: str) -> dict[str, Any]:
    answered = {"description": "As asked", "content": {kind: {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": answered, **_refusals(_OF_ALL, {})}}


def _asked(summary: str, body: Any, answer: Any, schemas: dict[str, Any], streams: bool = True) -> dict[str, Any]:
    """A POST of one type that answers another."""
    content = {_JSON: {"schema": _schema(body, schemas, "validation")}}
    answered = _answered("As asked; with `stream`, events whose data are parts of it", _schema(answer, schemas))
    if streams:
        answered["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answered, **_refusals(tuple(_REFUSALS), schemas)},
    }


def _answered(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _refusals(statuses: tuple[str, ...], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = _schema(answers.Error, schemas)
    return {status: _answered(_REFUSALS[status], schema) for status in statuses}
