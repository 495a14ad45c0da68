"""The HTTP API of each service as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from shared.app import Parts, build_app
from shared.health import Health

Json = dict[str, Any]
METHODS = {"get", "put", "post", "delete", "patch"}
PROBLEM: Json = {
    "title": "Problem",
    "description": "Problem details (RFC 9457); `errors` names the offending fields.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:isthmus:problem:invalid"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


def document(name: str, parts: Parts) -> Json:
    """What the service answers; errors as it really sends them, which the framework does not know."""
    api = build_app(name, parts.routes, Health()).openapi()
    schemas: Json = api.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    problem = {
        "description": "An error",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, operations in api["paths"].items():
        for method in METHODS & set(operations):
            operations[method]["responses"].pop("422", None)
            if not path.startswith(("/health/", "/metrics")):
                operations[method]["responses"]["default"] = problem
    return api
