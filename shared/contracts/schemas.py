"""JSON Schemas (2020-12) of events, from their models.

The writer's schema is closed: an event holds what is listed and nothing else. The reader's is open: readers ignore what
they do not know. In both an absent field is absent, never null, as events are written without nulls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from shared.messages import Event, Topic

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Open(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> Json:
        return self.generate_inner(schema["schema"])

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> Json:
        return {**super().decimal_schema(schema), "format": "decimal"}  # else it would pass for any text

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        json = super().default_schema(schema)
        if json.get("default", ...) is None:
            del json["default"]
        return json


class _Closed(_Open):
    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        return {**super().model_schema(schema), "additionalProperties": False}


def of_writer(topic: Topic[Any], event: type[Event]) -> Json:
    """What the owner of ``topic`` writes as this event; ``x-`` fields say where."""
    schema = TypeAdapter(event).json_schema(schema_generator=_Closed, mode="serialization")
    where = {"$schema": DIALECT, "$id": f"urn:{topic.type_of(event).replace('.', ':')}"}
    return {**where, **schema, "x-topic": topic.name, "x-key": topic.key}


def for_readers(events: Iterable[type[Event]], ref_template: str = DEFAULT_REF_TEMPLATE) -> Json:
    """Schemas by class name, with all that they refer to."""
    models = [(event, "serialization") for event in events]
    _, schemas = models_json_schema(models, schema_generator=_Open, ref_template=ref_template)  # pyright: ignore[reportArgumentType]
    return schemas.get("$defs", {})
