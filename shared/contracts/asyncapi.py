"""The topics as AsyncAPI 3.0: what is said on each, who says it, and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.app import Parts
from shared.contracts import golden, schemas
from shared.messages import CLOUDEVENTS_VERSION, Topic

Json = dict[str, Any]
BINDING = {"bindingVersion": "0.5.0"}
DESCRIPTION = """\
Every message is a CloudEvent 1.0 in binary mode: the attributes are headers with the prefix `ce_`, the value is the event as JSON.

Topics are ordered per key. `ce_sequence` counts the events of one key's entity without a gap; `ce_id` stays the same when a message comes twice.
Fields and events are only ever added: ignore what you do not know, and take an absent field for its default. Amounts are decimal strings."""  # noqa: E501


def document(topics: Sequence[Topic[Any]], services: Mapping[str, Parts], version: str, title: str) -> Json:
    """The document for these topics."""
    operations: Json = {}
    for topic in topics:
        operations[f"{topic.owner}.publish.{_short(topic)}"] = _operation(
            "send", topic, topic.owner, f"{topic.owner} publishes {topic.name}"
        )
    for service, parts in services.items():
        for subscription in parts.consumers.subscriptions:
            for topic in (one for one in subscription.topics if one in topics):
                what = (subscription.handle.__doc__ or subscription.name).partition("\n")[0]
                operations[f"{service}.{subscription.name}.{_short(topic)}"] = {
                    **_operation("receive", topic, service, what),
                    "bindings": {"kafka": {
                        "groupId": {"type": "string", "const": f"isthmus.{service}.{subscription.name}"}, **BINDING,
                    }},
                }  # fmt: skip
    events = [(topic, event) for topic in topics for event in topic.events.values()]
    components = {
        "messages": {topic.type_of(event): _message(topic, event) for topic, event in events},
        "schemas": {
            "CloudEventHeaders": _headers(),
            **schemas.for_readers([event for _, event in events], "#/components/schemas/{model}"),
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": operations,
        "components": components,
    }


def _short(topic: Topic[Any]) -> str:
    return topic.name.removeprefix("isthmus.").rpartition(".")[0]


def _channel(topic: Topic[Any]) -> Json:
    configuration = {
        "cleanup.policy": ["delete"],
        "retention.ms": topic.retention_ms,
        "max.message.bytes": topic.max_message_bytes,
    }
    return {
        "address": topic.name,
        "description": topic.about,
        "messages": {
            event.__name__: {"$ref": f"#/components/messages/{type_}"} for type_, event in topic.events.items()
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                **BINDING,
            }
        },
    }


def _operation(action: str, topic: Topic[Any], service: str, summary: str) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": summary,
        "tags": [{"name": service}],
    }


def _message(topic: Topic[Any], event: Any) -> Json:
    type_ = topic.type_of(event)
    attributes = {
        "type": "object",
        "properties": {"ce_type": {"const": type_}, "ce_source": {"const": topic.source}},
    }
    return {
        "name": type_,
        "title": event.__name__,
        "summary": (event.__doc__ or event.__name__).partition("\n")[0],
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": "#/components/schemas/CloudEventHeaders"}, attributes]},
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "bindings": {"kafka": {"key": {"type": "string", "description": f"`{topic.key}` of the event"}, **BINDING}},
        "examples": [
            {"name": example["name"], "headers": example["headers"], "payload": example["body"]}
            for example in golden.examples(topic, event)
        ],
    }


def _headers() -> Json:
    def text(description: str, **more: Any) -> Json:
        return {"type": "string", "description": description, **more}

    properties = {
        "ce_specversion": {"const": CLOUDEVENTS_VERSION},
        "ce_id": text("unique; a repetition has the same", format="uuid"),
        "ce_source": text("the service that says it"),
        "ce_type": text("which event it is"),
        "ce_time": text("when it was recorded; `occurred_at` in the event is business time", format="date-time"),
        "ce_partitionkey": text("the key of the message"),
        "ce_sequence": text(
            "place among the events of this key's entity on this topic, from 1", pattern="^[1-9][0-9]*$"
        ),
        "ce_correlationid": text("the same for all that one request brought about"),
        "ce_causationid": text("what brought it about: the ce_id of a message, or a command's or timer's id"),
        "ce_traceparent": text("W3C Trace Context"),
        "content-type": {"const": "application/json"},
    }
    return {
        "title": "CloudEventHeaders",
        "description": "CloudEvents 1.0 attributes in binary mode, with extensions.",
        "type": "object",
        "required": [name for name in properties if name != "ce_causationid"],
        "properties": properties,
    }
