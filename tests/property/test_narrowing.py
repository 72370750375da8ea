"""Narrowing is sound: what a narrower limit or grant lets through, the wider one does too."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lictor.canonical import Json
from lictor.errors import TaskError
from lictor.grant import Grant
from lictor.grant import narrower as grant_narrower
from lictor.limits import (
    Any,
    Equals,
    Limit,
    OneOf,
    PathUnder,
    Prefix,
    Range,
    UrlUnder,
    admits,
    narrower,
    parse,
    to_json,
)
from lictor.model import ToolKey

PATHS = ["/", "/a", "/a/b", "/ab", "a", "a/b", "/a/", "/a/../b"]
URLS = [
    "https://h.example",
    "https://h.example/",
    "https://h.example/a",
    "https://h.example/a/",
    "https://h.example/a/b",
    "https://h.example/ab?q=1",
    "https://h.example:8443/a",
    "http://h.example/a",
]
VALUES: list[Json] = [
    *PATHS,
    *URLS,
    "",
    "1",
    None,
    True,
    False,
    0,
    1,
    -1,
    0.1,
    1.5,
    100,
    [1],
    ["/a"],
    {"a": 1},
]
NUMBERS = st.decimals(-2, 101, allow_nan=False, places=1)


def _limits() -> st.SearchStrategy[Limit]:
    value = st.sampled_from(VALUES)
    return st.one_of(
        st.just(Any()),
        st.builds(Equals, value),
        st.builds(lambda values: OneOf(tuple(values)), st.lists(value, min_size=1, max_size=3)),
        st.builds(lambda a, b: Range(min(a, b), max(a, b)), NUMBERS, NUMBERS),
        st.builds(
            Prefix, st.sampled_from([text[:n] for text in [*PATHS, *URLS] for n in (1, 9, 99)])
        ),
        st.builds(PathUnder, st.sampled_from(PATHS[:6])),
        st.builds(UrlUnder, st.sampled_from([url for url in URLS if "?" not in url])),
    )


LIMITS = _limits()


@settings(max_examples=500)
@given(LIMITS, LIMITS)
def test_narrower_limit_admits_nothing_more(child: Limit, parent: Limit) -> None:
    assume(narrower(child, parent))
    for value in VALUES:
        assert not admits(child, value) or admits(parent, value)


@given(LIMITS)
def test_narrower_is_reflexive(limit: Limit) -> None:
    assert narrower(limit, limit) or isinstance(limit, Equals | OneOf)
    if isinstance(limit, Equals):
        assert narrower(limit, limit)


@settings(max_examples=300)
@given(LIMITS, LIMITS, LIMITS)
def test_narrower_is_never_wider_over_two_steps(one: Limit, two: Limit, three: Limit) -> None:
    assume(narrower(one, two) and narrower(two, three))
    for value in VALUES:
        assert not admits(one, value) or admits(three, value)


@given(LIMITS)
def test_limit_survives_json(limit: Limit) -> None:
    assert parse(to_json(limit), "x") == limit


KEYS = [ToolKey("local", "a"), ToolKey("local", "b"), ToolKey("bank", "a")]
NAMES = ["to", "amount", "memo"]
TABLES = st.dictionaries(st.sampled_from(NAMES), LIMITS, max_size=3)


@st.composite
def _grants(draw: st.DrawFn) -> Grant:
    tools = draw(st.none() | st.frozensets(st.sampled_from(KEYS)))
    allowed = KEYS if tools is None else sorted(tools)
    limits = draw(st.dictionaries(st.sampled_from(allowed), TABLES)) if allowed else {}
    return Grant(
        id="G",
        tenant=draw(st.sampled_from(["acme", "globex"])),
        agents=("one",),
        issued=draw(st.integers(0, 3)),
        expires=draw(st.integers(4, 9)),
        user=draw(st.sampled_from(["alice", "bob"])),
        tools=tools,
        read_only=draw(st.booleans()),
        limits=limits,
        max_calls=draw(st.none() | st.integers(0, 9)),
        max_spend=draw(st.none() | st.decimals(0, 9, places=2)),
    )


ARGUMENTS = st.dictionaries(st.sampled_from([*NAMES, "cc"]), st.sampled_from(VALUES), max_size=4)


def _lets(grant: Grant, key: ToolKey, effectful: bool, view: dict[str, Json]) -> bool:
    return grant.covers(key, effectful) and grant.check(key, view, {"memo": "", "cc": None}) is None


@settings(max_examples=500)
@given(_grants(), st.data())
def test_a_child_grant_lets_nothing_through_that_its_parent_refuses(
    parent: Grant, data: st.DataObject
) -> None:
    tools = data.draw(st.none() | st.frozensets(st.sampled_from(KEYS)))
    limits = data.draw(st.none() | st.dictionaries(st.sampled_from(KEYS), TABLES, max_size=2))
    try:
        child = parent.child(
            "two", tools, limits, read_only=data.draw(st.booleans()), max_calls=data.draw(st.none())
        )
    except TaskError:
        return
    assert grant_narrower(child, parent)
    assert child.expires <= parent.expires
    for key in KEYS:
        view = data.draw(ARGUMENTS)
        for effectful in (True, False):
            assert not _lets(child, key, effectful, view) or _lets(parent, key, effectful, view)


FIELDS = ["tools", "read_only", "limits", "expires", "max_calls", "max_spend", "user", "issued"]


@settings(max_examples=500)
@given(_grants(), _grants(), st.sets(st.sampled_from(FIELDS)), st.sampled_from(KEYS), ARGUMENTS)
def test_narrower_grant_lets_nothing_more_through(
    other: Grant, parent: Grant, changed: set[str], key: ToolKey, view: dict[str, Json]
) -> None:
    try:
        child = replace(parent, **{name: getattr(other, name) for name in changed})
    except TaskError:
        return
    if not grant_narrower(child, parent):
        return
    assert (child.tenant, child.user) == (parent.tenant, parent.user)
    for effectful in (True, False):
        assert not _lets(child, key, effectful, view) or _lets(parent, key, effectful, view)


@given(_grants())
def test_a_grant_survives_json_exactly(grant: Grant) -> None:
    assert Grant.from_json(grant.to_json()) == grant
    assert grant.max_spend is None or grant.max_spend_units == grant.max_spend * Decimal(10_000)
