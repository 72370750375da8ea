"""One trace from the agent through the gateway to the server; nobody's word about it counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from lictor.errors import ConfigError
from lictor.telemetry import Telemetry
from lictor_mcp.gateway.opening import open_gate
from lictor_mcp.gateway.stdio import StdioGateway
from lictor_mcp.gateway.upstream import Server
from lictor_mcp.testing import HostileServer, Line, definition, known

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
META = {
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "tracestate": "vendor=1",
    "baggage": "user=root",
    "progressToken": "p",
}
LOOK = definition("look", "name")
ONCE = {"at", "call", "grant", "host_id", "id", "seq", "stream", "task", "took_us", "trace"}
"""What differs between any two records."""
pytestmark = pytest.mark.asyncio


class Outside:
    """What an exporter gets."""

    def __init__(self, tracers: TracerProvider | None = None) -> None:
        self.out, self.tracers = InMemorySpanExporter(), tracers or TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.out))

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [each for each in self.out.get_finished_spans() if each.name.startswith(name)]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found


def place(span: ReadableSpan) -> tuple[str, str]:
    at = span.get_span_context()
    assert at is not None
    return f"{at.trace_id:032x}", f"{at.span_id:016x}"


def above(span: ReadableSpan) -> str:
    return "" if span.parent is None else f"{span.parent.span_id:016x}"


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    made.tracers.shutdown()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    made: list[Line] = []

    def make(outside: Outside | None = None, how: str = "continue", **more: Any) -> Line:
        if outside is not None:
            more["telemetry"] = Telemetry(outside.tracers)
        folder = tmp_path / str(len(made))
        folder.mkdir()
        server = HostileServer(LOOK)
        made.append(Line(folder, server, [known(LOOK)], relaying={"trace": how}, **more))
        return made[-1]

    yield make
    for each in made:
        each.gate.close()


def params(meta: Any = None, name: str = "look") -> dict[str, Any]:
    given = {"name": name, "arguments": {"name": "a"}}
    return given if meta is None else {**given, "_meta": meta}


def carried(made: Line, method: str = "tools/call") -> dict[str, Any]:
    """`_meta` of the newest message of this method that the server has got."""
    found = [each for each in made.server.seen if each.get("method") == method][-1]
    meta: dict[str, Any] = found["params"]["_meta"]
    return meta


async def test_a_gateway_continues_the_trace_of_its_client(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside)
    with made.task():
        await made.ask("tools/call", params(META))

    came, sent = outside.span("receive tools/call"), outside.span("send tools/call")
    decided = outside.span("authorize look")
    assert above(came) == SPAN
    assert above(decided) == above(sent) == place(came)[1]
    assert {place(each)[0] for each in (came, sent, decided)} == {TRACE}
    meta = carried(made)
    assert meta["traceparent"] == f"00-{TRACE}-{place(sent)[1]}-{meta['traceparent'][-2:]}"
    assert meta["tracestate"] == "vendor=1"
    assert meta["progressToken"] == "p"
    assert "baggage" not in meta


async def test_a_gateway_before_callers_that_it_does_not_trust_begins_a_trace_of_its_own(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside, "link")
    with made.task():
        await made.ask("tools/call", params(META))

    came, sent = outside.span("receive tools/call"), outside.span("send tools/call")
    assert above(came) == ""
    assert [f"{each.context.trace_id:032x}" for each in came.links] == [TRACE]
    assert TRACE not in {place(each)[0] for each in outside.spans()}
    meta = carried(made)
    assert meta["traceparent"].startswith(f"00-{place(came)[0]}-{place(sent)[1]}-")
    assert meta.keys() == {"traceparent", "progressToken"}
    (decision,) = made.lines()
    assert decision["trace"] == place(came)[0]


async def test_what_the_gateway_asks_in_its_own_name_is_part_of_the_trace(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside)
    with made.task():
        await made.ask("tools/call", params(META))

    listed = outside.span("send tools/list")
    assert above(listed) == place(outside.span("receive tools/call"))[1]
    assert carried(made, "tools/list")["traceparent"].split("-")[2] == place(listed)[1]


@pytest.mark.parametrize("how", ["continue", "link"])
async def test_a_client_that_names_no_trace_gets_one_that_reaches_the_server(
    line: Callable[..., Line], outside: Outside, how: str
) -> None:
    made = line(outside, how)
    with made.task():
        await made.ask("ping")
        await made.ask("tools/call", params())

    for method in ("ping", "tools/call"):
        sent = outside.span(f"send {method}")
        assert carried(made, method)["traceparent"].split("-")[1:3] == list(place(sent))
    first, second = outside.spans("receive")
    assert place(first)[0] != place(second)[0]


async def test_a_notification_goes_on_in_the_trace_too(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside, "link")
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"_meta": META}}
    with made.task():
        await made.raw(json.dumps(note).encode())

    assert TRACE not in repr(made.server.seen)
    assert place(outside.span("send notifications/progress"))[1] in repr(made.server.seen)


RAWS = [
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":{"name":"a"}}}',
    ' { "jsonrpc" : "2.0", "id" :1,  "params": {"_meta" : {"traceparent":"'
    + META["traceparent"]
    + '","baggage":"a=b"},\r\n"name":"lo\\u006fk", "arguments" : { "name" : "\\u00e4ä" } }, '
    '"method":"tools/call"} ',
]


@pytest.mark.parametrize("how", ["continue", "link"])
@pytest.mark.parametrize("raw", RAWS)
async def test_without_tracing_every_byte_passes_as_it_came(
    line: Callable[..., Line], raw: str, how: str
) -> None:
    made = line(None, how)
    with made.task():
        await made.raw(raw.encode())

    assert made.server.called == ["look"]
    assert raw.strip().replace("\r\n", "  ").encode() in made.server.raws


@pytest.mark.parametrize("raw", RAWS)
async def test_with_tracing_every_byte_but_those_of_meta_passes_as_it_came(
    line: Callable[..., Line], outside: Outside, raw: str
) -> None:
    made = line(outside)
    with made.task():
        await made.raw(raw.encode())

    (got,) = [each.decode() for each in made.server.raws if b"tools/call" in each]
    meta = json.loads(got)["params"]["_meta"]
    written = '"_meta":' + json.dumps(meta, separators=(",", ":"))
    if "_meta" in raw:
        start, end = raw.index('{"traceparent"'), raw.index("},") + 1
        wanted = raw[:start] + json.dumps(meta, separators=(",", ":")) + raw[end:]
    else:
        wanted = raw.replace('"params":{', f'"params":{{{written},')
    assert got == wanted.strip().replace("\r\n", "  ")


@pytest.mark.parametrize(
    "meta",
    [
        {"traceparent": "00-1-2-01"},
        {"traceparent": ["x"], "tracestate": {"a": 1}, "baggage": 7},
        {"traceparent": META["traceparent"], "tracestate": "x" * 5000},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"TraceParent": META["traceparent"], "BAGGAGE": "user=root"},
        {"traceparent": "\ud800"},
        {},
    ],
)
async def test_a_context_that_cannot_be_read_is_no_error_and_goes_no_further(
    line: Callable[..., Line], outside: Outside, caplog: pytest.LogCaptureFixture, meta: Any
) -> None:
    made = line(outside, "link")
    with made.task():
        told = await made.ask("tools/call", params(meta))

    assert "error" not in told
    assert carried(made).keys() == {"traceparent"}
    assert TRACE not in repr(carried(made))
    assert caplog.records == []


@pytest.mark.parametrize("meta", [None, 7, "text", ["traceparent"]])
async def test_a_meta_that_is_none_is_left_alone(
    line: Callable[..., Line], outside: Outside, meta: Any
) -> None:
    made = line(outside)
    with made.task():
        await made.ask("ping", {"_meta": meta})

    assert carried(made, "ping") == meta


async def test_a_method_that_a_client_invents_is_named_in_no_span(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside)
    with made.task():
        await made.ask("secret/4111111111111111", {})

    assert "4111111111111111" not in "".join(each.to_json() for each in outside.spans())
    assert outside.span("receive").name == "receive _other"


async def test_a_denied_call_is_in_the_trace_and_sends_nothing(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside)
    with made.task():
        await made.ask("tools/call", params(META, "other"))

    came = outside.span("receive tools/call")
    assert [above(each) for each in outside.spans("authorize")] == [place(came)[1]]
    assert outside.spans("send tools/call") == []
    assert dict(came.attributes or {}).keys() == {"mcp.method.name", "lictor.tool.server"}


@pytest.mark.attack("X33")
@pytest.mark.parametrize("how", ["continue", "link"])
@pytest.mark.parametrize("traced", [True, False])
async def test_a_forged_trace_is_no_identity_and_no_record(
    line: Callable[..., Line], outside: Outside, how: str, traced: bool
) -> None:
    """With somebody else's context or without, the same is decided, and the same recorded."""
    found: list[dict[str, Any]] = []
    for meta in (None, {**META, "baggage": "user=root,lictor.task.id=another,agent=admin"}):
        made = line(outside if traced else None, how)
        with made.task():
            await made.ask("tools/call", params(meta))
            await made.ask("tools/call", params(meta, "other"))
        found.append({"called": made.server.called, "lines": made.lines(), "codes": made.codes()})

    plain, forged = found
    assert forged["called"] == plain["called"] == ["look"]
    assert forged["codes"] == plain["codes"]
    for one, other in zip(plain["lines"], forged["lines"], strict=True):
        assert {**other, **{key: one[key] for key in ONCE}} == one
        assert (other["trace"] == TRACE) is (traced and how == "continue")
        assert "root" not in json.dumps(other)


@pytest.mark.attack("X33")
async def test_an_untrusted_caller_does_not_choose_that_he_is_sampled(
    line: Callable[..., Line],
) -> None:
    outside = Outside(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    made = line(outside, "link")
    with made.task():
        await made.ask("tools/call", params(META))

    assert outside.spans() == []
    assert int(carried(made)["traceparent"][-2:], 16) & 1 == 0
    outside.tracers.shutdown()


async def test_the_answer_of_the_server_passes_as_it_came_with_tracing_too(
    line: Callable[..., Line], outside: Outside
) -> None:
    made = line(outside)
    made.server.answers["tools/call"] = {"content": [], "_meta": dict(META)}
    with made.task():
        told = await made.ask("tools/call", params(META))

    assert told["result"]["_meta"] == META
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("said", "how"),
    [("", "continue"), ('trace = "link"', "link"), ('trace = "continue"', "continue")],
)
async def test_the_operator_says_whether_a_client_is_continued(
    tmp_path: Path, said: str, how: str
) -> None:
    file = tmp_path / "lictor.toml"
    file.write_text(
        f'[mcp]\nagent = "bot"\ntask = "t"\nuser = "alice"\n{said}\n'
        '[agents.bot]\nowner = "alice"\n[users.alice]\n[tasks.t]\n'
    )
    opened = open_gate(file)
    servers = [Server(name, ["cat"], {}) for name in ("one", "two")]
    gateway = StdioGateway.of(opened.gate, servers, opened=opened)
    opened.close()

    assert [each.relay._trace for each in gateway._upstreams] == [how, how]


async def test_another_word_for_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lictor.toml"
    file.write_text('[mcp]\ntrace = "follow"\n')

    with pytest.raises(ConfigError, match=r"mcp\.trace"):
        open_gate(file)
