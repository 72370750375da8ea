"""A proposal: what a tool looks like, and never less than it may be."""

from __future__ import annotations

import pytest

from lictor.canonical import Json
from lictor.catalog import propose
from lictor.catalog.propose import below_hint
from lictor.model import Impact, Tool, ToolKey

TEXT = {"type": "string"}


def tool(name: str, description: str = "", /, **arguments: Json) -> Tool:
    made = {n: {"type": a} if isinstance(a, str) else a for n, a in arguments.items()}
    return Tool(ToolKey("local", name), description, {"type": "object", "properties": made})


def looks(each: Tool) -> str:
    return " ".join(sorted(propose(each).impact))


@pytest.mark.parametrize(
    ("each", "impact", "reason"),
    [
        (tool("get_balance"), "read", '"get"'),
        (tool("read_file", "Reads a file.", file_path="string"), "read", '"read"'),
        (tool("balance", "Returns the balance."), "read", '"return"'),
        (tool("send_money", to="string", amount="number"), "transfer", '"to", "amount"'),
        (tool("schedule", recipient="string", amount="number"), "transfer", '"recipient"'),
        (tool("get_or_purge", key="string"), "delete", '"purge" in its name'),
        (tool("query", sql="string"), "execute", '"sql" may hold code'),
        (tool("search", query="string"), "write", '"query" may hold a query'),
        (tool("fetch", url="string"), "send", '"url" may name an address'),
        (tool("get", imageURLs={"type": "array", "items": TEXT}), "send", '"imageURLs"'),
        (tool("web_search", "Searches the web."), "send", '"web" in its name'),
        (tool("send_email", to="string", body="string"), "send", '"send"'),
        (tool("write_file", path="string", content="string"), "write", '"write"'),
        (tool("store_file", path="string"), "write", '"store"'),
        (tool("file", path="string"), "write", '"path" may be written to'),
        (tool("get_file", output_path="string"), "write", '"output_path" may be written'),
        (tool("python_repl", code="string"), "execute", '"python" in its name'),
        (tool("get_data", what={}), "write", '"what" takes anything'),
        (tool("get_data", what={"type": "object"}), "write", '"what" takes anything'),
        (tool("multiply", a="number", b="number"), "write", "nothing says that it only reads"),
        (tool("get_page", "Gets a page and deletes it."), "delete", '"delete" in its desc'),
        (tool("get_page", "Gets a page. Modifies its counter."), "write", '"modify"'),
        (tool("get_page", "Gets it and publishes it."), "send", '"publish"'),
        (tool("get_page", "This tool silently deletes a page."), "delete", '"delete"'),
        (tool("get_changes", "Lists the latest changes."), "read", '"get"'),
        (tool("list_sent_messages", "Lists messages.", channel="string"), "read", '"list"'),
        (tool("get_rows", target={**TEXT, "description": "A SQL text."}), "execute", "code"),
        (tool("get_page", target={**TEXT, "format": "uri"}), "send", '"target"'),
        (tool("get_раge"), "write", "plain letters"),
        (tool("get", **{"соde": "string"}), "write", "plain letters"),
    ],
    ids=lambda value: value.key.name if isinstance(value, Tool) else "",
)
def test_what_it_looks_like_and_why(each: Tool, impact: str, reason: str) -> None:
    proposal = propose(each)

    assert looks(each) == impact
    assert reason in proposal.reason


@pytest.mark.parametrize(
    ("hints", "impact"),
    [
        ({"readOnlyHint": True}, "read"),
        ({"readOnlyHint": False}, "write"),
        ({"readOnlyHint": "yes"}, "write"),
        ({"destructiveHint": True}, "delete"),
        ({"destructiveHint": "yes"}, "delete"),
        ({"destructiveHint": False}, "read"),
        ({"readOnlyHint": True, "destructiveHint": True}, "delete"),
        ({"readOnlyHint": True, "openWorldHint": True}, "send"),
    ],
)
def test_a_hint_raises_and_never_lowers(hints: dict[str, object], impact: str) -> None:
    assert looks(Tool(ToolKey("x", "get_it"), annotations=hints)) == impact
    assert looks(Tool(ToolKey("x", "purge"), annotations=hints)).startswith("delete")
    assert below_hint(
        Tool(ToolKey("x", "get_it"), annotations=hints), frozenset({Impact.READ})
    ) == (hints == {"destructiveHint": True})


def test_a_hint_alone_can_say_that_a_tool_reads() -> None:
    assert looks(Tool(ToolKey("x", "balance"), annotations={"readOnlyHint": True})) == "read"


def test_an_effect_is_offered_its_target_and_amount_and_what_an_auditor_asks_for() -> None:
    each = tool("send_money", subject="string", recipient="string", amount="number")
    proposal = propose(each)

    assert (proposal.target, proposal.amount) == (("recipient",), "amount")
    assert proposal.recordable == ("recipient", "amount")
    assert propose(tool("get_balance", account="string")).target == ()


def test_a_nested_argument_is_offered_by_the_name_that_an_entry_can_hold() -> None:
    inner = {"type": "object", "properties": {"to": TEXT, "body": TEXT}}
    proposal = propose(tool("send", message=inner))

    assert proposal.target == ("message",)


def test_what_comes_from_outside_is_told() -> None:
    assert propose(tool("fetch", url="string")).outside
    assert propose(Tool(ToolKey("x", "get"), annotations={"openWorldHint": True})).outside
    assert not propose(tool("send_email", to="string")).outside


def test_a_reason_is_short_and_visible() -> None:
    each = tool("get", **{"url\u202e" + "x" * 500: {}, "b\nurl": {}, "c_url": {}, "d_url": {}})
    reason = propose(each).reason

    assert reason.isprintable()
    assert "\u202e" not in reason
    assert len(reason) < 400


def test_a_tool_whose_arguments_cannot_be_checked_is_no_read() -> None:
    proposal = propose(tool("get", what={"type": "string", "pattern": "(?=a)"}))

    assert proposal.impact == {Impact.EXECUTE}
    assert "cannot be checked" in proposal.reason
