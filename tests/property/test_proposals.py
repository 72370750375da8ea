"""`read` is proposed for no tool with an argument that could do more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.catalog import propose
from lictor.model import Impact, Tool, ToolKey

READ = frozenset({Impact.READ})
TEXT: dict[str, Any] = {"type": "string"}

NAMES = [
    *("url", "URL", "imageUrl", "base_url", "urls", "sourceURLs", "url2", "theurl", "link"),
    *("uri", "resource_uri", "endpoint", "webhook", "callback_url", "host"),
    *("sql", "sqlText", "SQLQuery", "raw_sql", "query", "the_query", "graphqlQuery", "q"),
    *("code", "source_code", "pythonCode", "command", "shellCommand", "cmd", "script"),
    *("expression", "expr", "formula", "eval", "output_path", "destination", "outFile_out"),
]
"""Names of arguments that can do more than read, as people write them."""

UNTYPED: list[Any] = [
    {},
    True,
    {"description": "anything"},
    {"type": []},
    {"type": "object"},
    {"type": "array"},
    {"type": "array", "items": {}},
    {"type": "array", "items": True},
    {"type": ["string", "object"]},
    {"type": "object", "additionalProperties": True},
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
    {"type": "object", "properties": {"a": TEXT}, "patternProperties": {"^x": {}}},
    {"anyOf": [TEXT, {}]},
    {"oneOf": [{}, TEXT]},
    {"allOf": [{}]},
    {"$ref": "#/$defs/nothing"},
    {"$ref": "https://evil.example/schema"},
    {"$ref": "#"},
    {"type": "array", "prefixItems": [TEXT]},
    {"minLength": 1},
    {"not": TEXT},
]


def _wraps(name: str, schema: Any) -> list[dict[str, Any]]:
    """An argument at every place a schema has for one."""
    inner = {"type": "object", "properties": {name: schema}}
    return [
        {"properties": {name: schema}},
        {"properties": {"data": inner}},
        {"properties": {"data": {"type": "array", "items": inner}}},
        {"properties": {"data": {"anyOf": [{"type": "null"}, inner]}}},
        {"properties": {"data": {"allOf": [inner]}}},
        {"properties": {"data": {"$ref": "#/$defs/d"}}, "$defs": {"d": inner}},
        {"properties": {"data": {"type": "array", "prefixItems": [inner], "items": False}}},
        {"allOf": [inner]},
        {"anyOf": [inner, {"properties": {"data": TEXT}}]},
        {"properties": {"data": TEXT}, "if": {"required": ["data"]}, "then": inner},
        {"properties": {"data": TEXT}, "dependentSchemas": {"data": inner}},
    ]


def _tool(schema: dict[str, Any], **parts: Any) -> Tool:
    given = {"description": "Gets it.", **parts}
    return Tool(ToolKey("x", "get_it"), input_schema={"type": "object", **schema}, **given)


@pytest.mark.parametrize("name", NAMES)
def test_no_place_of_a_schema_hides_an_argument_that_could_do_more(name: str) -> None:
    for schema in _wraps(name, TEXT):
        assert propose(_tool(schema)).impact != READ, schema


@pytest.mark.parametrize("untyped", UNTYPED, ids=str)
def test_no_place_of_a_schema_hides_an_argument_without_a_type(untyped: Any) -> None:
    for schema in _wraps("what", untyped):
        assert propose(_tool(schema)).impact != READ, schema


@pytest.mark.parametrize("word", ["additionalProperties", "unevaluatedProperties"])
def test_a_tool_that_takes_names_of_its_own_is_no_read(word: str) -> None:
    assert propose(_tool({"properties": {"n": TEXT}, word: True})).impact != READ
    assert propose(_tool({"properties": {"n": TEXT}, word: TEXT})).impact != READ
    assert propose(_tool({"properties": {"n": TEXT}, word: False})).impact == READ
    assert propose(_tool({"properties": {"n": TEXT}, "required": ["m"]})).impact != READ


safe = st.recursive(
    st.sampled_from(
        [
            TEXT,
            {"type": "integer"},
            {"type": ["number", "null"]},
            {"enum": ["a", "b"]},
            {"const": 1},
            {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda each: {"type": "array", "items": each}, inner),
        st.builds(lambda each: {"type": "object", "properties": {"n": each}}, inner),
        st.builds(lambda each: {"anyOf": [each, {"type": "null"}]}, inner),
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["n", "city", "day", "page", "size"]), safe))
def test_a_tool_that_only_reads_is_told_as_one(properties: dict[str, Any]) -> None:
    """Without this the rules above would hold of a proposal that never says `read`."""
    assert propose(_tool({"properties": properties})).impact == READ


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["string", "url", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "properties", "items", "anyOf", "allOf", "$ref", "$defs", "required"),
                    *("additionalProperties", "enum", "url", "sql", "n"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(json, st.dictionaries(st.sampled_from(["readOnlyHint", "destructiveHint"]), json))
def test_whatever_a_server_says_a_proposal_is_made(schema: Any, hints: dict[str, Any]) -> None:
    given = schema if isinstance(schema, dict) else {"properties": schema}
    proposal = propose(Tool(ToolKey("x", "get_it"), "Gets it.", given, annotations=hints))

    assert proposal.impact
    assert proposal.reason
    if proposal.impact == READ:
        assert not hints.get("destructiveHint")
        assert not _names(given) & {"url", "sql"}


def _names(node: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(node, list):
        for each in node:
            found |= _names(each)
    elif isinstance(node, dict):
        for word, each in node.items():
            if word == "properties" and isinstance(each, dict):
                found |= set(each)
            found |= _names(each)
    return found


@given(st.sampled_from(NAMES), safe, st.integers(0, 10), st.booleans())
def test_a_hint_of_reading_lowers_nothing(name: str, schema: Any, place: int, hint: bool) -> None:
    found = _wraps(name, copy.deepcopy(schema))[place]
    proposal = propose(_tool(found, annotations={"readOnlyHint": hint}))

    assert proposal.impact != READ
