"""Ways around a gate through arguments and names: the lines of the list that end here."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from lictor import forms, limits
from lictor.canonical import InputInvalid, Json, canonical, take
from lictor.catalog import Catalog
from lictor.grant import Grant
from lictor.limits import Equals, OneOf, PathUnder, Prefix, Range, UrlUnder, admits
from lictor.model import Impact, Review, Tool, ToolKey
from lictor.ports import Known
from lictor.schema import compile

PAY = Tool(
    ToolKey("bank", "pay"),
    "Pays.",
    {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "amount": {"type": "number"},
            "cc": {"type": "string", "default": "nobody"},
        },
        "required": ["to", "amount"],
    },
)
CATALOG = Catalog(
    [Known(Review(PAY.key, frozenset({Impact.TRANSFER}), PAY.pin, ("to",), "amount"), PAY)]
)
GRANT = Grant(
    id="G",
    tenant="acme",
    agents=("banker",),
    issued=1,
    expires=2,
    user="alice",
    tools=frozenset({PAY.key}),
    limits={PAY.key: {"to": Equals("landlord"), "amount": Range(Decimal(0), Decimal(1500))}},
)


def stopped(view: dict[str, Any]) -> str | None:
    """Why arguments do not get through copy, schema and grant; `None` if they do."""
    try:
        taken = take(view)
        validator = compile(PAY.input_schema)
        validator.check(taken.view, taken.encoded)
    except InputInvalid as error:
        return str(error)
    return GRANT.check(PAY.key, taken.view, validator.defaults)


def test_the_honest_call_gets_through() -> None:
    assert stopped({"to": "landlord", "amount": 1200}) is None
    assert stopped({"to": "landlord", "amount": 1200, "cc": "nobody"}) is None


class Chameleon(str):
    """Says one thing to whoever checks and another to whoever runs."""

    looks = 0

    def __str__(self) -> str:
        Chameleon.looks += 1
        return "landlord" if Chameleon.looks < 3 else "attacker"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("landlord")


@pytest.mark.attack("X10")
def test_object_that_changes_its_words_is_refused() -> None:
    assert stopped({"to": Chameleon("attacker"), "amount": 5}) is not None
    assert stopped({"to": ["landlord", Chameleon("x")], "amount": 5}) is not None


@pytest.mark.attack("X10")
def test_list_changed_after_the_check_does_not_reach_the_body() -> None:
    shared = ["landlord"]
    taken = take({"to": shared})
    shared[0] = "attacker"
    assert taken.values == taken.view == {"to": ["landlord"]}
    assert taken.values["to"] is not taken.view["to"]


NAMES = [
    "Pay",
    "PAY",
    "pay ",
    " pay",
    "ｐａｙ",
    "p\u0430y",
    "pay\u200b",
    "pay\u202e",
    "pay\x00",
    "pay\n",
]


@pytest.mark.attack("X20")
@pytest.mark.parametrize("name", NAMES)
def test_name_that_looks_like_a_tool_is_not_it(name: str) -> None:
    try:
        look_alike = Tool.from_definition({**PAY.definition(), "name": name})
    except ValueError:
        return
    assert CATALOG.check(look_alike) == "tool_unreviewed"
    assert not GRANT.covers(look_alike.key, effectful=True)


@pytest.mark.attack("X20")
@pytest.mark.parametrize("server", ["Bank", "bank ", "bаnk", "ｂank", "bank\u200b", ""])
def test_server_that_looks_like_another_is_no_server(server: str) -> None:
    with pytest.raises(ValueError):
        Tool.from_definition({**PAY.definition(), "server": server})


@pytest.mark.attack("X20")
@pytest.mark.parametrize("name", ["To", "to ", "ｔｏ", "t\u043e", "to\u200b", "AMOUNT"])
def test_argument_that_looks_like_another_is_unknown(name: str) -> None:
    assert stopped({"to": "landlord", "amount": 5, name: "attacker"}) is not None


@pytest.mark.attack("X21")
@pytest.mark.parametrize(
    "amount",
    [
        "5000",
        "$5000",
        "5",
        {"v": 5000},
        [5],
        True,
        None,
        math.nan,
        math.inf,
        -math.inf,
        10**30,
        -5,
        -0.01,
        1500.0000001,
        json.loads("1e400"),
        Decimal("5.000000000000000000000000000001"),
    ],
)
def test_amount_of_another_type_or_beyond_the_ends_is_stopped(amount: object) -> None:
    assert stopped({"to": "landlord", "amount": amount}) is not None


@pytest.mark.attack("X21")
def test_minus_zero_is_zero_and_nothing_else() -> None:
    positive = Range(Decimal("0.01"), Decimal(5))
    assert not admits(positive, -0.0)
    assert admits(Equals(0), -0.0)
    assert canonical(-0.0) == b"0"


@pytest.mark.attack("X21")
@pytest.mark.parametrize("value", [True, False, None, "1", "0", [1], {"v": 1}, math.nan])
def test_no_limit_mistakes_one_type_for_another(value: Json) -> None:
    for limit in (Equals(1), Equals(0), OneOf((0, 1)), Range(Decimal(0), Decimal(1))):
        assert not admits(limit, value)
    if not isinstance(value, str):
        for text in (Prefix("1"), PathUnder("/"), UrlUnder("https://a.example/")):
            assert not admits(text, value)


@pytest.mark.attack("X21")
def test_range_open_at_one_end_does_not_load() -> None:
    for raw in ({"max": "500"}, {"min": "0"}):
        with pytest.raises(Exception, match="without"):
            limits.parse(raw, "x")


@pytest.mark.attack("X22")
@pytest.mark.parametrize(
    "view",
    [
        {"amount": 5},
        {"to": "landlord"},
        {},
        {"recipient": "landlord", "amount": 5},
        {"to": "landlord", "amount": 5, "bcc": "attacker"},
        {"to": "landlord", "amount": 5, "cc": "attacker"},
        {"to": "landlord", "amount": 5, "cc": ""},
    ],
)
def test_missing_renamed_or_extra_argument_is_stopped(view: dict[str, Any]) -> None:
    assert stopped(view) is not None


@pytest.mark.attack("X22")
def test_limited_argument_cannot_be_left_to_the_default_of_the_tool() -> None:
    grant = Grant.from_json(
        {**GRANT.to_json(), "limits": {"bank/pay": {"cc": {"equals": "nobody"}}}}
    )
    assert grant.check(PAY.key, {}, {"cc": "everybody"}) == "cc"


@pytest.mark.attack("X23")
@pytest.mark.parametrize(
    "path",
    [
        "/data/../etc/passwd",
        "/data/./../etc",
        "/data//../etc",
        "/data/x/",
        "//data/x",
        "/data/%2e%2e/etc",
        "/data/%2E%2E%2Fetc",
        "/data/%252e%252e/etc",
        "/data/x\x00.txt",
        "/data\\..\\etc",
        "data/x",
        "./data/x",
        "../data/x",
        "C:/data/x",
        "c:\\data\\x",
        "file:///data/x",
        "~/data",
        "/DATA/x",
        "/database/x",
        "/data/\uff0e\uff0e/etc",
        "/data\u2044x",
        "/data/cafe\u0301",
        "",
    ],
)
def test_path_out_of_its_root_is_stopped(path: str) -> None:
    assert admits(PathUnder("/data"), "/data/x")
    assert not admits(PathUnder("/data"), path)


@pytest.mark.attack("X24")
@pytest.mark.parametrize(
    "url",
    [
        "https://api.example@evil.io/v1",
        "https://user:pw@api.example/v1",
        "https://api.example:444/v1",
        "https://api.example:443/v1",
        "https://api.example./v1",
        "https://API.example/v1",
        "https://api%2eexample/v1",
        "https://api.example.evil.io/v1",
        "https://api.example\\@evil.io/v1",
        "https://evil.io/https://api.example/v1",
        "https://аpi.example/v1",
        "https://api。example/v1",
        "http://api.example/v1",
        "HTTPS://api.example/v1",
        "//api.example/v1",
        "javascript:https://api.example/v1",
        "file://api.example/v1",
        "https://api.example/v1/../admin",
        "https://api.example/v1/%2e%2e/admin",
        "https://api.example/v1/..;/admin",
        "https://api.example/v1%2f..%2fadmin",
        "https://api.example/v10",
        "https://api.example/v1#@evil.io",
        "https://api.example/v1 ",
        "https://api.example/v1\n",
    ],
)
def test_url_off_its_base_is_stopped(url: str) -> None:
    assert admits(UrlUnder("https://api.example/v1"), "https://api.example/v1/x")
    assert not admits(UrlUnder("https://api.example/v1"), url)


@pytest.mark.attack("X24")
@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[::1%25lo]",
        "①②⑦.0.0.1",
        "localhost.",
        "LOCALHOST",
    ],
)
def test_loopback_has_one_spelling(host: str) -> None:
    with pytest.raises(forms.NotCanonical):
        forms.uri(f"http://{host}/")


@pytest.mark.attack("X24")
def test_two_addresses_in_one_argument_are_not_one_address() -> None:
    for text in ("evil@x.io,boss@acme.com", "boss@acme.com evil@x.io", "evil@x.io;boss@acme.com"):
        with pytest.raises(forms.NotCanonical):
            forms.email(text)


@pytest.mark.attack("X25")
@pytest.mark.parametrize(
    "value", [2**53, -(2**53), 10**400, "\ud800", "\udc00x", {"\udfff": 1}, {"a": ["\ud83d"]}]
)
def test_value_that_two_decoders_read_differently_is_refused(value: object) -> None:
    with pytest.raises(InputInvalid):
        take({"a": value})


@pytest.mark.attack("X25")
def test_what_is_decided_on_is_what_runs_byte_for_byte() -> None:
    taken = take({"b": 1.0, "a": {"é": [True, None]}})
    assert json.loads(taken.encoded) == taken.view == taken.values
    assert take(json.loads(taken.encoded)).encoded == taken.encoded


@pytest.mark.attack("X25")
def test_duplicate_name_in_the_lock_is_refused() -> None:
    from lictor.catalog import entries

    with pytest.raises(ValueError, match="twice"):
        json.loads('{"a": 1, "a": 2}', object_pairs_hook=entries._once)


@pytest.mark.attack("X35")
def test_definition_of_endless_depth_is_refused_and_nothing_crashes() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"properties": {"a": deep}}
    with pytest.raises(ValueError, match="too deep"):
        Tool(ToolKey("evil", "deep"), input_schema=deep)


@pytest.mark.attack("X35")
def test_a_hundred_thousand_tools_leave_the_reviewed_one_alone() -> None:
    assert CATALOG.check(PAY) is None
    flood = (Tool(ToolKey("evil", f"t{n}")) for n in range(1_000))
    assert {CATALOG.check(tool) for tool in flood} == {"tool_unreviewed"}


@pytest.mark.attack("X38")
@pytest.mark.parametrize("text", ["a/b/c", "a__b/c"])
def test_slash_and_underscores_do_not_mix_up_server_and_name(text: str) -> None:
    if "__" in text:
        with pytest.raises(ValueError):
            ToolKey.parse(text)
        return
    with pytest.raises(ValueError):
        ToolKey.checked("a/b", "c")
    assert ToolKey.parse(text) == ToolKey("a", "b/c")


@pytest.mark.attack("X38")
def test_pin_tells_a_local_tool_from_a_server_of_the_same_tool() -> None:
    local = Tool.from_definition({**PAY.definition(), "server": "local"})
    assert local.pin != PAY.pin
    assert CATALOG.check(local) == "tool_unreviewed"


@pytest.mark.attack("X38")
@pytest.mark.parametrize("name", ["_", "", "a\tb", "x" * 129])
def test_name_that_would_be_a_group_or_hide_is_no_tool(name: str) -> None:
    with pytest.raises(ValueError):
        ToolKey.checked("bank", name)
