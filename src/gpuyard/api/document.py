"""The OpenAPI document, made to say what is true of every operation: the token it needs, and how it refuses."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gpuyard.api.schemas import Problem

# The last two prove themselves by what they say.
_OPEN = frozenset({"/v1/health", "/v1/ca", "/v1/login", "/v1/login/oidc", "/v1/payments/stripe", "/v1/machines/join"})
_REFUSED = {
    "description": "Refused. `code` is stable, `detail` is a sentence in the language of Accept-Language.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def install(app: FastAPI) -> None:
    """Completes the document that FastAPI makes, once, when it is first asked for."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = complete


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    shapes = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        shapes.pop(unused, None)
    shapes["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "gy_..."}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _REFUSED
            if path not in _OPEN:
                operation["security"] = [{"token": []}]
    return document
