"""Policy sees only arguments whose type has one certain reading."""

from __future__ import annotations

from typing import Any

import pytest

from lictor.policy.shape import (
    Field,
    Reads,
    Record,
    Scalar,
    SetOf,
    context,
    of_tool,
    project,
    to_cedar,
)
from lictor.testing import reviewed, tool_of

STRING = {"type": "string"}


def seen(part: Any, formats: dict[str, str] | None = None, **schema: Any) -> Field | None:
    """How policy sees one argument `x`."""
    tool = tool_of("t", {"x": part}, **schema)
    shape = of_tool(tool, reviewed(tool, formats=formats or {}).review)
    return next((field for field in shape.fields if field.name == "x"), None)


@pytest.mark.parametrize(
    ("part", "cedar"),
    [
        (STRING, {"type": "String"}),
        ({"type": "integer"}, {"type": "Long"}),
        ({"type": "number"}, {"type": "Extension", "name": "decimal"}),
        ({"type": "boolean"}, {"type": "Boolean"}),
        ({"enum": ["a", "b"]}, {"type": "String"}),
        ({"enum": [1, 2]}, {"type": "Long"}),
        ({"const": "a"}, {"type": "String"}),
        ({"const": True}, {"type": "Boolean"}),
        ({"type": "array", "items": STRING}, {"type": "Set", "element": {"type": "String"}}),
        ({"type": ["string", "null"]}, {"type": "String"}),
        ({"anyOf": [STRING, {"type": "null"}]}, {"type": "String"}),
        ({"allOf": [STRING]}, {"type": "String"}),
        (
            {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]},
            {"type": "Extension", "name": "decimal"},
        ),
        (
            {"type": "object", "properties": {"a": STRING}, "required": ["a"]},
            {"type": "Record", "attributes": {"a": {"type": "String", "required": True}}},
        ),
    ],
)
def test_what_is_certain_is_visible(part: Any, cedar: Any) -> None:
    field = seen(part)

    assert field is not None
    assert to_cedar(field.shape) == cedar


@pytest.mark.parametrize(
    "part",
    [
        {},
        True,
        {"type": "null"},
        {"type": "object"},
        {"type": "object", "additionalProperties": STRING},
        {"type": "object", "properties": {"a": STRING}, "additionalProperties": True},
        {"type": "object", "properties": {"a": STRING}, "patternProperties": {"b": STRING}},
        {"type": ["string", "integer"]},
        {"anyOf": [STRING, {"type": "integer"}]},
        {"oneOf": [STRING, {"type": "boolean"}]},
        {"enum": ["a", 1]},
        {"enum": [1, True]},
        {"enum": []},
        {"enum": [1.5]},
        {"type": "array"},
        {"type": "array", "items": {"anyOf": [STRING, {"type": "null"}]}},
        {"type": "array", "prefixItems": [STRING]},
        {"$ref": "https://evil.example/schema"},
        {"$ref": "#/$defs/nobody"},
    ],
)
def test_what_is_not_certain_is_invisible(part: Any) -> None:
    assert seen(part) is None


@pytest.mark.parametrize(
    ("part", "required", "there"),
    [
        (STRING, ["x"], True),
        (STRING, [], False),
        ({"type": ["string", "null"]}, ["x"], False),
        ({"enum": ["a", None]}, ["x"], False),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, ["x"], False),
    ],
)
def test_null_means_absent(part: Any, required: list[str], there: bool) -> None:
    field = seen(part, required=required)

    assert field is not None
    assert field.required is there


def test_local_references_are_followed_and_circles_are_not() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/Home"}, "loop": {"$ref": "#/$defs/Loop"}},
        "$defs": {
            "Home": {"type": "object", "properties": {"city": STRING}, "required": ["city"]},
            "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "null"}]},
        },
    }
    tool = tool_of("t")
    tool = type(tool)(tool.key, input_schema=schema)
    shape = of_tool(tool, reviewed(tool).review)

    assert [field.name for field in shape.fields] == ["x"]
    assert shape.fields[0].shape == Record(
        (Field("city", Scalar("String")),), names=frozenset({"city"})
    )


def test_pydantic_models_of_a_tool_are_read(desk: Any) -> None:
    from decimal import Decimal
    from enum import StrEnum

    from pydantic import BaseModel

    class Kind(StrEnum):
        NEW = "new"
        OLD = "old"

    class Home(BaseModel):
        city: str
        zip: int | None = None

    class Order(BaseModel):
        kind: Kind = Kind.NEW
        price: Decimal
        home: Home
        tags: list[str] = []
        extra: dict[str, str] = {}

    tool = tool_of("order")
    tool = type(tool)(tool.key, input_schema=Order.model_json_schema())
    fields = {field.name: field for field in of_tool(tool, reviewed(tool).review).fields}

    assert fields["kind"].shape == Scalar("String", frozenset({"new", "old"}))
    assert fields["price"].shape == Scalar("decimal")
    assert isinstance(fields["home"].shape, Record)
    assert fields["tags"].shape == SetOf(Scalar("String"))
    assert fields["tags_count"] == Field("tags_count", Scalar("Long"), False, counts="tags")
    assert "extra" not in fields


def test_formats_show_text_in_its_parts() -> None:
    uri = seen(STRING, {"x": "uri"})
    emails = seen({"type": "array", "items": STRING}, {"x": "email"})

    assert uri is not None
    assert isinstance(uri.shape, Record)
    assert [field.name for field in uri.shape.fields] == ["scheme", "host", "port", "path", "query"]
    assert emails is not None
    assert isinstance(emails.shape, SetOf)
    assert isinstance(emails.shape.element, Record)
    assert seen(STRING, {"x": "path"}) == Field("x", Scalar("String", form="path"), False)


def test_a_count_is_never_mistaken_for_an_argument_of_that_name() -> None:
    tool = tool_of("t", {"to": {"type": "array", "items": STRING}, "to_count": {"type": "integer"}})
    fields = [f for f in of_tool(tool, reviewed(tool).review).fields if f.name == "to_count"]

    assert fields == [Field("to_count", Scalar("Long"), False, counts="to")]


def test_reserved_names_are_invisible() -> None:
    tool = tool_of("t", {"__entity": STRING, "a": STRING})

    assert [f.name for f in of_tool(tool, reviewed(tool).review).fields] == ["a"]


HOME = Record((Field("city", Scalar("String")), Field("zip", Scalar("Long"), False)))
WHOLE = context(Record((Field("id", Scalar("Long")), Field("home", HOME, False))))


def names(shape: Any) -> Any:
    if isinstance(shape, Record):
        return {field.name: names(field.shape) for field in shape.fields}
    return None


@pytest.mark.parametrize(
    ("whole", "present", "left"),
    [
        ([], [], {}),
        ([("session", "calls")], [], {"session": {"calls": None}}),
        ([("input", "home", "city")], [("input", "home")], {"input": {"home": {"city": None}}}),
        ([], [("input", "home")], {"input": {"home": {}}}),
        ([], [("input", "id")], {"input": {"id": None}}),
        ([("input", "home")], [], {"input": {"home": {"city": None, "zip": None}}}),
        ([("grant", "user", "tenant")], [], {"grant": {"user": None}}),
        ([("met",)], [], {"met": None}),
        ([()], [], names(WHOLE)),
    ],
)
def test_a_context_is_cut_down_leaf_by_leaf(whole: Any, present: Any, left: Any) -> None:
    reads = Reads(frozenset(whole), frozenset(present))

    assert names(project(WHOLE, reads)) == left
