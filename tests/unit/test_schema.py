"""Arguments against a pinned schema: no unknown field, no coercion, no fetch, no stall."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from lictor import schema
from lictor.canonical import InputInvalid, Json
from lictor.schema import MAX_SCHEMA_BYTES, SchemaRefused, compile

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}}
PAY = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "maxLength": 30},
        "amount": {"type": "number", "minimum": 0},
        "memo": {"type": "string", "default": ""},
        "when": {"enum": ["now", "later"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["to", "amount"],
}


def fits(schema: dict[str, Any], view: dict[str, Json]) -> bool:
    try:
        compile(schema).check(view)
    except InputInvalid:
        return False
    return True


def test_arguments_that_fit_pass() -> None:
    compile(PAY).check({"to": "x", "amount": 5, "tags": ["a"], "when": "now"}, b"{}")


@pytest.mark.parametrize(
    ("view", "path", "problem"),
    [
        ({"amount": 5}, "to", "is missing"),
        ({"to": 5, "amount": 5}, "to", "wrong type"),
        ({"to": "x", "amount": "5000"}, "amount", "wrong type"),
        ({"to": "x", "amount": True}, "amount", "wrong type"),
        ({"to": "x", "amount": None}, "amount", "wrong type"),
        ({"to": "x", "amount": -1}, "amount", "too small"),
        ({"to": "secret" * 9, "amount": 1}, "to", "too long"),
        ({"to": "x", "amount": 5, "when": "secret"}, "when", "allowed values"),
        ({"to": "x", "amount": 5, "tags": ["a", 7]}, "tags[1]", "wrong type"),
        ({"to": "x", "amount": 5, "cc": "secret"}, "", "not in the tool's definition"),
    ],
)
def test_error_names_the_argument_and_no_value(
    view: dict[str, Json], path: str, problem: str
) -> None:
    with pytest.raises(InputInvalid) as refused:
        compile(PAY).check(view)
    assert refused.value.path == path
    assert problem in refused.value.problem
    assert "secret" not in str(refused.value)


def test_declared_names_defaults_and_required_are_known() -> None:
    validator = compile(PAY)
    assert validator.defaults == {"memo": ""}
    assert validator.arguments == {"to", "amount", "memo", "when", "tags"}
    assert validator.required == {"to", "amount"}


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_tool_without_arguments_takes_none(schema: dict[str, Any]) -> None:
    assert fits(schema, {})
    assert not fits(schema, {"x": 1})


@pytest.mark.parametrize(
    ("inner", "good", "bad"),
    [
        (PERSON, {"name": "a"}, {"name": "a", "x": 1}),
        ({"$ref": "#/$defs/P"}, {"name": "a"}, {"name": "a", "x": 1}),
        ({"anyOf": [{"$ref": "#/$defs/P"}, {"type": "null"}]}, None, {"x": 1}),
        ({"oneOf": [{"$ref": "#/$defs/P"}, {"type": "null"}]}, {"name": "a"}, {"x": 1}),
        ({"allOf": [{"$ref": "#/$defs/P"}]}, {"name": "a"}, {"x": 1}),
        (
            {"allOf": [{"$ref": "#/$defs/P"}, {"properties": {"age": {}}}]},
            {"name": "a", "age": 5},
            {"x": 1},
        ),
        ({"properties": {"age": {}}, "$ref": "#/$defs/P"}, {"name": "a", "age": 5}, {"x": 1}),
        ({"type": "array", "items": PERSON}, [{"name": "a"}], [{"x": 1}]),
        ({"prefixItems": [PERSON]}, [{"name": "a"}], [{"x": 1}]),
        ({"additionalProperties": PERSON}, {"k": {"name": "a"}}, {"k": {"x": 1}}),
        ({"patternProperties": {"^k": PERSON}}, {"k": {"name": "a"}}, {"z": 1}),
        ({"if": {"required": ["n"]}, "then": {"properties": {"n": {}}}}, {"n": 1}, {"x": 1}),
    ],
)
def test_objects_are_closed_wherever_they_stand(
    inner: dict[str, Any], good: Json, bad: Json
) -> None:
    schema = {"properties": {"p": inner}, "$defs": {"P": PERSON}}
    assert fits(schema, {"p": good})
    assert not fits(schema, {"p": bad})


def test_free_form_and_openly_open_objects_stay_open() -> None:
    assert fits({"properties": {"p": {"type": "object"}}}, {"p": {"any": 1}})
    assert fits({"properties": {"p": {**PERSON, "additionalProperties": True}}}, {"p": {"x": 1}})
    assert fits({"properties": {"a": {}}, "additionalProperties": True}, {"x": 1})


def test_definition_that_a_composition_extends_is_not_closed_under_it() -> None:
    schema = {
        "properties": {
            "plain": {"$ref": "#/$defs/P"},
            "more": {"allOf": [{"$ref": "#/$defs/P"}, {"properties": {"age": {}}}]},
        },
        "$defs": {"P": PERSON},
    }
    assert fits(schema, {"plain": {"name": "a"}, "more": {"name": "a", "age": 1}})
    assert not fits(schema, {"plain": {"name": "a", "age": 1}})
    assert not fits(schema, {"more": {"x": 1}})


@pytest.mark.parametrize(
    ("inner", "view"),
    [
        ({"not": {"properties": {"q": PERSON}}}, {"q": {"name": "a", "x": 1}}),
        ({"oneOf": [PERSON, {"type": "object"}]}, {"name": "a", "x": 1}),
    ],
)
def test_closing_never_lets_through_what_the_schema_refuses(
    inner: dict[str, Any], view: Json
) -> None:
    assert not fits({"properties": {"p": inner}}, {"p": view})


def test_requirements_between_arguments_survive_closing() -> None:
    schema = {
        "properties": {"a": {}, "b": {}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    assert fits(schema, {"a": 1})
    assert not fits(schema, {})
    assert not fits(schema, {"a": 1, "c": 1})


def test_recursive_schema_checks_every_level() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "v": {}}}
    schema = {"properties": {"t": {"$ref": "#/$defs/n"}}, "$defs": {"n": node}}
    assert fits(schema, {"t": {"next": {"next": {"v": 1}}}})
    assert not fits(schema, {"t": {"next": {"next": {"x": 1}}}})


def test_draft_7_is_read_as_it_was_meant() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.test/pay",
        "properties": {
            "pair": {"items": [{"type": "string"}, {"type": "integer"}]},
            "p": {"$ref": "#/definitions/P", "maxProperties": 0},
        },
        "definitions": {"P": PERSON},
    }
    assert fits(schema, {"pair": ["a", 1], "p": {"name": "a"}})
    assert not fits(schema, {"pair": [1, 1]})
    assert not fits(schema, {"p": {"x": 1}})


def test_a_name_for_references_is_only_a_note() -> None:
    address = {"$anchor": "address", "type": "object", "properties": {"city": {"type": "string"}}}
    schema = {"properties": {"to": {"$ref": "#/$defs/a"}}, "$defs": {"a": address}}
    validator = compile(schema)
    validator.check({"to": {"city": "Rome"}})
    with pytest.raises(InputInvalid):
        validator.check({"to": {"city": 1}})
    with pytest.raises(InputInvalid):
        validator.check({"to": {"more": 1}})
    with pytest.raises(SchemaRefused):
        compile({**schema, "properties": {"to": {"$ref": "#address"}}})


def test_a_name_that_looks_like_a_keyword_is_only_a_name() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "allOf": {"enum": ["$ref"]}}}
    assert fits(schema, {"$ref": "http://x.test/", "allOf": "$ref"})
    assert not fits(schema, {"allOf": "x"})


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def _bomb(levels: int) -> dict[str, Any]:
    chain: dict[str, Any] = {
        f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)
    }
    return {
        "properties": {"x": {"$ref": "#/$defs/a0"}},
        "$defs": {**chain, f"a{levels}": {"type": "string"}},
    }


def _chain(length: int) -> dict[str, Any]:
    links = {f"a{n}": {"properties": {"p": {"$ref": f"#/$defs/a{n + 1}"}}} for n in range(length)}
    return {"properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": {**links, f"a{length}": {}}}


def _growing() -> dict[str, Any]:
    """Recursion through a composition that declares fields: exponential for every engine."""
    again = {"properties": {"next": {"$ref": "#/$defs/n"}}}
    return {
        "properties": {"t": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"properties": {"v": {}}, "anyOf": [again, {**again, "minProperties": 1}]}},
    }


@pytest.mark.attack("X35")
@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"$ref": "http://127.0.0.1/x"}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$ref": "#name"}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$ref": 5}}}, "/properties/a/$ref"),
        ({"properties": {"a": {"$dynamicRef": "#x"}}}, "/properties/a/$dynamicRef"),
        ({"properties": {"a": {"$id": "http://x.test/"}}}, "/properties/a/$id"),
        ({"properties": {"a": {"$schema": "http://x.test/"}}}, "/properties/a/$schema"),
        ({"$schema": "http://x.test/"}, "/$schema"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "/$defs/a"),
        ({"properties": {"a": {"pattern": "(?=x)y"}}}, "/properties/a/pattern"),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, "/properties/a/pattern"),
        ({"properties": {"a": {"pattern": r"\d{1,100000}"}}}, "/properties/a/pattern"),
        ({"properties": {"a": {"type": "strin"}}}, "/properties/a/type"),
        ({"properties": {"a": 5}}, "/properties/a"),
        ({"properties": []}, "/properties"),
        ({"type": "array"}, "/type"),
        (_deep(40), "/properties/a"),
        (_deep(5_000), ""),
        ({"description": "x" * MAX_SCHEMA_BYTES}, ""),
        ({"default": float("nan")}, ""),
        (_bomb(30), "/properties/x"),
        (_chain(400), "/$defs/"),
        (_growing(), "/$defs/n"),
    ],
)
def test_hostile_or_broken_schema_is_refused_with_its_place(
    schema: dict[str, Any], place: str
) -> None:
    with pytest.raises(SchemaRefused) as refused:
        compile(schema)
    assert refused.value.place.startswith(place)


@pytest.mark.attack("X35")
def test_no_schema_makes_the_gate_connect_anywhere() -> None:
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        for schema in (
            {"properties": {"a": {"$ref": url}}},
            {"$id": url, "properties": {"a": {"$ref": "y#/z"}}},
            {"$schema": url},
            {"properties": {"a": {"x-unknown": {"$ref": url}}}},
        ):
            try:
                compile(schema).check({"a": 1})
            except SchemaRefused:
                pass
            try:
                server.accept()
                reached.set()
            except TimeoutError:
                pass
    assert not reached.is_set()


@pytest.mark.attack("X35")
def test_pattern_that_would_backtrack_answers() -> None:
    assert not fits({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 50_000 + "b"})


@pytest.mark.attack("X35")
def test_recursive_alternatives_are_answered_without_an_explosion() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}
    schema = {
        "properties": {"t": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"anyOf": [node, {**node, "minProperties": 1}]}},
    }
    value: dict[str, Json] = {"bad": 1}
    for _ in range(28):
        value = {"next": value}
    with pytest.raises(InputInvalid, match="do not fit"):
        compile(schema).check({"t": value})


def test_the_schema_of_the_tool_is_not_touched() -> None:
    schema = {"type": "object", "properties": {"p": {"properties": {"x": {}}}}}
    compile(schema)
    assert schema == {"type": "object", "properties": {"p": {"properties": {"x": {}}}}}


@pytest.mark.attack("X35")
def test_the_engine_itself_fetches_nothing_even_if_our_own_walk_missed_a_reference() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(SchemaRefused):
            schema._engine("Draft202012Validator", {"$ref": url})
        with pytest.raises(TimeoutError):
            server.accept()
