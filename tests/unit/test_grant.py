"""A grant covers, limits, pins and narrows; what is wider is refused and named."""

from __future__ import annotations

from decimal import Decimal
from typing import Any as Anything

import pytest

from lictor.canonical import Json
from lictor.errors import TaskError
from lictor.grant import MAX_LINKS, Grant, narrower
from lictor.limits import Any, Equals, Limit, OneOf, Range
from lictor.model import Impact, Review, ToolKey

PAY = ToolKey("local", "update_scheduled_transaction")
READ = ToolKey("local", "read_file")
OTHER = ToolKey("local", "send_money")
RENT: dict[str, Limit] = {"id": Equals(7), "amount": Range(Decimal(0), Decimal(1500))}


def grant(**over: Anything) -> Grant:
    parts: dict[str, Anything] = {
        "id": "01ROOT",
        "tenant": "acme",
        "agents": ("banker",),
        "issued": 100,
        "expires": 1000,
        "user": "alice",
        "tools": frozenset({PAY, READ}),
        "limits": {PAY: RENT},
    }
    return Grant(**{**parts, **over})


def review(**over: Anything) -> Review:
    return Review(
        key=over.pop("key", PAY), impact=frozenset({Impact.TRANSFER}), pin="sha256:0", **over
    )


def test_grant_without_tools_may_only_read() -> None:
    reads = grant(tools=None, limits={})
    assert reads.covers(OTHER, effectful=False)
    assert not reads.covers(OTHER, effectful=True)


def test_grant_with_tools_covers_those_and_no_other() -> None:
    assert grant().covers(PAY, effectful=True)
    assert not grant().covers(OTHER, effectful=True)
    assert not grant().covers(OTHER, effectful=False)
    assert not grant(tools=frozenset(), limits={}).covers(READ, effectful=False)


def test_read_only_grant_has_no_effect_even_with_the_tool_named() -> None:
    assert not grant(read_only=True).covers(PAY, effectful=True)
    assert grant(read_only=True).covers(READ, effectful=False)


@pytest.mark.parametrize(
    ("view", "offending"),
    [
        ({"id": 7, "amount": 1200}, None),
        ({"id": 7, "amount": 1200, "recipient": None}, None),
        ({"id": 7, "amount": 1200, "recipient": "US133"}, "recipient"),
        ({"id": 7, "amount": 1200, "recipient": ""}, "recipient"),
        ({"id": 7, "amount": 1200, "flag": True}, None),
        ({"id": 7, "amount": 1200, "flag": 1}, "flag"),
        ({"id": 7, "amount": 1501}, "amount"),
        ({"id": True, "amount": 5}, "id"),
        ({"id": 7}, "amount"),
        ({"amount": 5}, "id"),
        ({}, "id"),
    ],
)
def test_limited_tool_takes_only_what_its_limits_name(
    view: dict[str, Json], offending: str | None
) -> None:
    assert grant().check(PAY, view, {"recipient": None, "flag": True}) == offending


def test_tool_without_limits_is_not_limited_and_any_may_be_absent() -> None:
    assert grant().check(READ, {"path": "/x"}, {}) is None
    loose = grant(limits={PAY: {**RENT, "memo": Any()}})
    assert loose.check(PAY, {"id": 7, "amount": 5}, {}) is None
    assert loose.check(PAY, {"id": 7, "amount": 5, "memo": [1]}, {}) is None


def test_empty_limits_allow_no_argument_but_defaults() -> None:
    bare = grant(limits={PAY: {}})
    assert bare.check(PAY, {}, {}) is None
    assert bare.check(PAY, {"id": 7}, {}) == "id"


@pytest.mark.parametrize(
    ("limits", "target", "amount", "pinned"),
    [
        (RENT, ("id",), "amount", True),
        (RENT, ("id", "recipient"), "amount", False),
        ({**RENT, "id": Any()}, ("id",), "amount", False),
        ({"id": Equals(7)}, ("id",), "amount", False),
        ({"id": Equals(7)}, ("id",), "", True),
        ({"id": OneOf((1, 2)), "memo": Any()}, ("id",), "", True),
        ({"id": Equals(7)}, (), "", True),
        ({"id": Equals(7), "memo": Any()}, (), "", False),
        ({}, (), "", True),
    ],
)
def test_pins_means_every_target_and_amount_is_limited(
    limits: dict[str, Limit], target: tuple[str, ...], amount: str, pinned: bool
) -> None:
    assert grant(limits={PAY: limits}).pins(PAY, review(target=target, amount=amount)) is pinned


def test_tool_without_limits_is_never_pinned() -> None:
    assert not grant().pins(READ, review(key=READ))


def test_child_inherits_what_it_does_not_name() -> None:
    child = grant(max_calls=5, max_spend=Decimal(10)).child("researcher")
    assert child.agents == ("banker", "researcher")
    assert (child.tools, child.limits) == (grant().tools, grant().limits)
    assert (child.depth, child.parent, child.expires) == (2, "01ROOT", 1000)
    assert (child.max_calls, child.max_spend) == (5, Decimal(10))
    assert child.id != "01ROOT"


def test_child_that_drops_a_tool_drops_its_limits() -> None:
    child = grant().child("researcher", [READ], expires=500, read_only=True)
    assert child.tools == {READ}
    assert child.limits == {}
    assert narrower(child, grant())


@pytest.mark.attack("X42")
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"tools": [OTHER]}, "local/send_money"),
        ({"expires": 1001}, "parent's time"),
        ({"issued": 99}, "parent's time"),
        ({"max_calls": 6}, "max_calls"),
        ({"max_spend": Decimal("10.01")}, "max_spend"),
        ({"limits": {PAY: {"id": Equals(8), "amount": Equals(5)}}}, "argument id"),
        ({"limits": {PAY: {"id": Equals(7)}}}, "argument amount"),
        ({"limits": {PAY: {**RENT, "recipient": Any()}}}, "argument recipient"),
        ({"limits": {PAY: {**RENT, "amount": Any()}}}, "argument amount"),
        ({"limits": {OTHER: RENT}}, "local/send_money"),
    ],
)
def test_wider_child_is_refused_and_the_wide_part_named(
    asked: dict[str, Anything], named: str
) -> None:
    parent = grant(max_calls=5, max_spend=Decimal(10))
    with pytest.raises(TaskError, match=named):
        parent.child("researcher", **asked)


@pytest.mark.attack("X42")
def test_child_of_a_reading_grant_only_reads() -> None:
    child = grant(tools=None, limits={}).child("researcher", [PAY])
    assert not child.covers(PAY, effectful=True)


@pytest.mark.attack("X42")
def test_grant_with_effects_is_not_narrower_than_one_that_reads() -> None:
    assert narrower(grant(read_only=True), grant())
    assert not narrower(grant(), grant(read_only=True))
    assert grant(read_only=True).child("researcher", [PAY]).read_only


@pytest.mark.attack("X42")
def test_agent_cannot_delegate_to_itself_nor_without_end() -> None:
    with pytest.raises(TaskError, match="already in the chain"):
        grant().child("banker")
    link = grant()
    for n in range(MAX_LINKS - 1):
        link = link.child(f"agent-{n}")
    with pytest.raises(TaskError, match="deep"):
        link.child("one-more")


@pytest.mark.attack("X42")
@pytest.mark.parametrize(
    "over",
    [
        {"tenant": "globex"},
        {"user": "bob"},
        {"user": "", "autonomous": True},
        {"agents": ("other",)},
        {"tools": None, "limits": {}},
        {"limits": {}},
        {"agents": ("other", "banker")},
    ],
)
def test_grant_of_somebody_or_something_else_is_not_narrower(over: dict[str, Anything]) -> None:
    assert narrower(grant(), grant())
    assert not narrower(grant(**over), grant())


@pytest.mark.parametrize(
    "over",
    [
        {"agents": ()},
        {"agents": ("",)},
        {"agents": ("a", "a")},
        {"expires": 100},
        {"user": ""},
        {"autonomous": True},
        {"max_calls": -1},
        {"max_spend": Decimal(-1)},
        {"max_spend": Decimal("1e20")},
        {"limits": {OTHER: {}}},
    ],
)
def test_meaningless_grant_cannot_be_made(over: dict[str, Anything]) -> None:
    with pytest.raises(TaskError):
        grant(**over)


def test_grant_keeps_no_hold_on_its_limits() -> None:
    mine = dict(RENT)
    made = grant(limits={PAY: mine})
    mine["amount"] = Any()
    assert made.check(PAY, {"id": 7, "amount": 9999}, {}) == "amount"
    with pytest.raises(TypeError):
        made.limits[PAY] = {}  # type: ignore[index]


def test_spend_is_counted_in_whole_units_rounded_down() -> None:
    assert grant(max_spend=Decimal("12.34567")).max_spend_units == 123_456
    assert grant(max_spend=Decimal("0.12345678901234567890123456789012")).max_spend_units == 1234
    assert grant().max_spend_units is None


@pytest.mark.parametrize(
    "change",
    [
        {"tools": ["local/read_file", "local/send_money"], "extra": 1},
        {"tools": "local/read_file"},
        {"tools": ["read_file"]},
        {"expires": "1000"},
        {"agents": "banker"},
        {"max_spend": "NaN"},
        {"max_spend": 5},
        {"limits": {"local/read_file": {"path": {"max": "5"}}}},
        {"limits": None},
        {"read_only": 0},
        {"depth": True},
        {"max_calls": 5.0},
        {"user": None},
    ],
)
def test_stored_grant_that_does_not_read_back_is_refused(change: dict[str, Json]) -> None:
    with pytest.raises(TaskError):
        Grant.from_json({**grant().to_json(), **change})


def test_stored_grant_with_a_part_missing_is_refused() -> None:
    raw = grant().to_json()
    for name in raw:
        with pytest.raises(TaskError):
            Grant.from_json({key: value for key, value in raw.items() if key != name})
