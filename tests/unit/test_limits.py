"""The closed algebra of limits: what each admits, how it is read, and that nothing else loads."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lictor.canonical import Json
from lictor.errors import ConfigError
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
    describe,
    narrower,
    parse,
    to_json,
)

RENT = Range(Decimal("0.01"), Decimal("500"))


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (Any(), None),
        (Any(), [{"a": float("nan")}]),
        (Equals(7), 7),
        (Equals(7), 7.0),
        (Equals("x"), "x"),
        (Equals({"a": [1]}), {"a": [1]}),
        (Equals(None), None),
        (OneOf(("a", 2)), 2),
        (RENT, 500),
        (RENT, 0.01),
        (RENT, 500.0),
        (Range(Decimal("0.1"), Decimal("0.3")), 0.3),
        (Prefix("inv-"), "inv-7"),
        (PathUnder("/data"), "/data"),
        (PathUnder("/data"), "/data/x/y"),
        (PathUnder("/"), "/x"),
        (PathUnder("data"), "data/x"),
        (UrlUnder("https://a.example/v1"), "https://a.example/v1"),
        (UrlUnder("https://a.example/v1"), "https://a.example/v1/x?q=1"),
        (UrlUnder("https://a.example"), "https://a.example/any"),
        (UrlUnder("https://a.example/v1/"), "https://a.example/v1/x"),
    ],
)
def test_admits(limit: Limit, value: Json) -> None:
    assert admits(limit, value) is True


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (Equals(1), True),
        (Equals(True), 1),
        (Equals(0), False),
        (Equals("1"), 1),
        (Equals(None), ""),
        (Equals("x"), "X"),
        (OneOf((1, "a")), True),
        (OneOf((1, 2)), [1]),
        (RENT, True),
        (RENT, "5"),
        (RENT, None),
        (RENT, [5]),
        (RENT, {"v": 5}),
        (RENT, float("nan")),
        (RENT, float("inf")),
        (RENT, -5),
        (RENT, -0.0),
        (RENT, 500.01),
        (RENT, 10**30),
        (Prefix("inv-"), "INV-1"),
        (Prefix("inv-"), ["inv-1"]),
        (PathUnder("/data"), "/database"),
        (PathUnder("/data"), "/data/../etc"),
        (PathUnder("/data"), "/data/"),
        (PathUnder("/data"), "data/x"),
        (PathUnder("/data"), 5),
        (PathUnder("data"), "/data/x"),
        (UrlUnder("https://a.example/v1"), "https://a.example/v1x"),
        (UrlUnder("https://a.example/v1"), "https://a.example.evil.io/v1"),
        (UrlUnder("https://a.example/v1"), "http://a.example/v1"),
        (UrlUnder("https://a.example/v1"), "https://a.example:8443/v1"),
        (UrlUnder("https://a.example/v1"), "https://a.example/v1/../v2"),
        (UrlUnder("https://a.example/v1/"), "https://a.example/v1"),
        (UrlUnder("https://a.example/"), None),
    ],
)
def test_refuses(limit: Limit, value: Json) -> None:
    assert admits(limit, value) is False


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (7, Equals(7)),
        ("x", Equals("x")),
        (True, Equals(True)),
        (["a", 2], OneOf(("a", 2))),
        ({"min": "0.01", "max": "500"}, RENT),
        ({"min": 0, "max": 1.5}, Range(Decimal(0), Decimal("1.5"))),
        ({"prefix": "inv-"}, Prefix("inv-")),
        ({"path_under": "/data"}, PathUnder("/data")),
        ({"url_under": "https://a.example/v1"}, UrlUnder("https://a.example/v1")),
        ({"equals": {"a": 1}}, Equals({"a": 1})),
        ({"one_of": [[1], [2]]}, OneOf(([1], [2]))),
        ({"any": True}, Any()),
    ],
)
def test_parse_reads_every_form_and_json_brings_it_back(raw: object, limit: Limit) -> None:
    assert parse(raw, "here") == limit
    assert parse(to_json(limit), "here") == limit


def test_true_and_one_are_different_limits() -> None:
    assert Equals(1) != Equals(True)
    assert Equals(1) == Equals(1.0)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"max": "500"}, "max without min"),
        ({"min": "0"}, "min without max"),
        ({"maximum": 5}, "unknown operator 'maximum'"),
        ({"path-under": "/x"}, "unknown operator"),
        ({}, "no operator"),
        ({"min": 0, "max": 1, "prefix": "x"}, "two that do not go together"),
        ({"min": "x", "max": "1"}, "min and max are numbers"),
        ({"min": True, "max": 5}, "min and max are numbers"),
        ({"min": "NaN", "max": "5"}, "finite"),
        ({"min": "0", "max": "Infinity"}, "finite"),
        ({"min": 5, "max": 4}, "admits nothing"),
        ({"any": False}, "any is written"),
        ([], "at least one"),
        ({"one_of": "ab"}, "takes a list"),
        ({"prefix": ""}, "empty prefix"),
        ({"prefix": 5}, "takes a string"),
        ({"path_under": "/data/"}, "not a plain path"),
        ({"url_under": "https://u@a.example/"}, "names a user"),
        ({"url_under": "https://a.example/?x"}, "no query"),
        ({"equals": float("nan")}, "not a finite number"),
        (2**60, "2^53"),
        (1e16, "canonical JSON"),
        (object(), "type that cannot be checked"),
    ],
)
def test_what_is_not_in_the_algebra_does_not_load(raw: object, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(raw, "lictor.toml: tasks.x")
    assert refused.value.where == "lictor.toml: tasks.x"
    assert words in refused.value.problem
    assert refused.value.mend


def test_near_operator_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'path_under'"):
        parse({"path_undr": "/x"}, "x")


def test_a_limit_keeps_no_hold_on_what_it_was_made_from() -> None:
    value: dict[str, Json] = {"a": [1]}
    limit = Equals(value)
    value["a"] = [2]
    assert admits(limit, {"a": [1]})
    assert limit.value == {"a": [1]}


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (Equals(5), Any()),
        (Equals(5), Range(Decimal(0), Decimal(9))),
        (Equals(5), OneOf((5, 6))),
        (OneOf((5, 6)), Range(Decimal(5), Decimal(6))),
        (Range(Decimal(1), Decimal(2)), Range(Decimal(1), Decimal(2))),
        (Prefix("ab"), Prefix("a")),
        (Equals("abc"), Prefix("ab")),
        (PathUnder("/data/x"), PathUnder("/data")),
        (PathUnder("/data"), Prefix("/da")),
        (Equals("/data/x"), PathUnder("/data")),
        (UrlUnder("https://a.example/v1/x"), UrlUnder("https://a.example/v1")),
    ],
)
def test_narrower(child: Limit, parent: Limit) -> None:
    assert narrower(child, parent)


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (Any(), Equals(5)),
        (Any(), Prefix("a")),
        (Equals(True), Equals(1)),
        (OneOf((5, 60)), Range(Decimal(5), Decimal(6))),
        (Range(Decimal(0), Decimal(2)), Range(Decimal(1), Decimal(2))),
        (Range(Decimal(1), Decimal(1)), Equals(1)),
        (Prefix("a"), Prefix("ab")),
        (Prefix("/data/"), PathUnder("/data")),
        (PathUnder("/"), PathUnder("/data")),
        (PathUnder("/database"), PathUnder("/data")),
        (UrlUnder("https://a.example/"), Prefix("https://a.example/")),
        (UrlUnder("https://a.example/v1"), UrlUnder("https://a.example/v1/")),
        (UrlUnder("https://b.example/"), UrlUnder("https://a.example/")),
    ],
)
def test_not_narrower(child: Limit, parent: Limit) -> None:
    assert not narrower(child, parent)


def test_describe_is_one_visible_line() -> None:
    assert describe(RENT) == "a number from 0.01 to 500"
    assert describe(Equals("a\u202eb")) == 'exactly "a\\u{202e}b"'
    for limit in (Any(), OneOf((1, "x")), Prefix("a"), PathUnder("/d"), UrlUnder("https://a.b/")):
        assert "\n" not in describe(limit)
