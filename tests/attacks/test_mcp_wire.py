"""Bytes that the gate could read in one way and a server in another."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lictor_mcp.testing import HostileServer, Line, code_of, definition, known
from lictor_mcp.wire import INVALID_REQUEST, PARSE_ERROR

pytestmark = pytest.mark.asyncio
LOOK = definition("look", "name")
PUT = definition("put", "name", "text")
READ = '{"name":"look","arguments":{"name":"a"}}'
WRITE = '{"name":"put","arguments":{"name":"a","text":"b"}}'


def frame(params: str, method: str = "tools/call", id: str = "1") -> bytes:
    return (f'{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}').encode()


async def pushed(made: Line, raw: bytes) -> list[str]:
    """What the client is told of bytes, under a task that may only read."""
    with made.task():
        return [code_of(each) for each in await made.raw(raw)]


async def test_the_line_carries_what_is_allowed(line: Callable[..., Line]) -> None:
    made = line()
    assert await pushed(made, frame(READ)) == ["permit"]
    assert await pushed(made, frame(WRITE)) == ["grant_scope"]
    assert made.server.called == ["look"]


@pytest.mark.attack("X25", "X36")
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r"])
async def test_a_call_hidden_between_line_ends_of_another_message_is_not_made(
    line: Callable[..., Line], end: str
) -> None:
    """The SDK's server reads lines in text mode: a lone carriage return ends one."""
    hidden = frame(WRITE, id="99").decode()
    made = line()
    carrier = f'{{"cursor":{end}{hidden}{end}}}'
    await pushed(made, frame(carrier, "tools/list"))
    await pushed(made, frame(f'{{"name":"look","arguments":{{"name":"a"}},"_meta":{carrier}}}'))

    assert made.server.called in ([], ["look"])
    assert not any(b"\r" in raw or b"\n" in raw for raw in made.server.raws)


@pytest.mark.attack("X25", "X31")
@pytest.mark.parametrize("end", ["\r", "\r\n"])
async def test_a_request_of_the_server_hidden_between_line_ends_does_not_reach_the_client(
    line: Callable[..., Line], end: str
) -> None:
    hidden = json.dumps({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage"})
    answer = '{"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":{"x":%s%s%s}}}'
    made = line()
    made.server.answers["tools/call"] = lambda message: None
    with made.task():
        await made.relay.from_client(frame(READ))
        await made.server.heard("tools/call")
        await made.server.say((answer % (end, hidden, end)).encode())
        await made.quiet()

    assert made.raws
    assert not any(b"\r" in raw or b"\n" in raw for raw in made.raws)


UNICODE_ENDS = ["\u2028", "\u2029", "\x85", "\u2028\u2028"]


@pytest.mark.attack("X110")
@pytest.mark.parametrize("end", UNICODE_ENDS)
async def test_a_line_end_of_unicode_in_an_argument_ends_no_line_at_the_server(
    line: Callable[..., Line], end: str
) -> None:
    """`str.splitlines` and httpx end a line there, and JSON lets it stand in a text as it is."""
    made = line()
    raw = frame(f'{{"name":"look","arguments":{{"name":"a{end}\\\\{end}"}}}}')
    assert await pushed(made, raw) == ["permit"]

    assert len(made.server.raws[-1].decode().splitlines()) == 1
    assert json.loads(made.server.raws[-1]) == json.loads(raw)


@pytest.mark.attack("X110")
@pytest.mark.parametrize("end", UNICODE_ENDS)
async def test_a_line_end_of_unicode_in_a_result_ends_no_line_at_the_client(
    line: Callable[..., Line], end: str
) -> None:
    text = json.dumps(f"{end}id: 7{end}", ensure_ascii=False)
    content = f'[{{"type":"text","text":{text}}}]'
    answer = f'{{"jsonrpc":"2.0","id":1,"result":{{"content":{content}}}}}'
    made = line()
    made.server.answers["tools/call"] = lambda message: None
    with made.task():
        await made.relay.from_client(frame(READ))
        await made.server.heard("tools/call")
        await made.server.say(answer.encode())
        await made.quiet()

    assert len(made.raws[-1].decode().splitlines()) == 1
    assert made.got[-1] == json.loads(answer)


TWO_READINGS = {
    "name twice": '{"name":"look","name":"put","arguments":{"name":"a","text":"b"}}',
    "name twice, one escaped": '{"name":"look","\\u006eame":"put","arguments":{"name":"a"}}',
    "arguments twice": '{"name":"look","arguments":{"name":"a"},"arguments":{"name":"z"}}',
    "argument twice, deep": '{"name":"look","arguments":{"name":"a","x":[{"y":1,"y":2}]}}',
    "member of _meta twice": '{"name":"look","arguments":{"name":"a"},"_meta":{"a":1,"a":2}}',
    "name in another case": '{"name":"look","Name":"put","arguments":{"name":"a"}}',
    "name with a Kelvin sign": '{"name":"look","arguments":{"name":"a"},"tas\u212a":{}}',
    "argument in two cases": '{"name":"look","arguments":{"name":"a","NAME":"b"}}',
    "argument with a long s": '{"name":"look","arguments":{"name":"a","s":"b","\u017f":"c"}}',
    "not a number": '{"name":"look","arguments":{"name":"a","n":NaN}}',
    "infinity": '{"name":"look","arguments":{"name":"a","n":-Infinity}}',
    "beyond a double": '{"name":"look","arguments":{"name":"a","n":1e400}}',
    "beyond 2^53": '{"name":"look","arguments":{"name":"a","n":9007199254740993}}',
    "minus zero": '{"name":"look","arguments":{"name":"a","n":-0}}',
    "whole number with a fraction": '{"name":"look","arguments":{"name":"a","n":5.0}}',
    "whole number with an exponent": '{"name":"look","arguments":{"name":"a","n":5e3}}',
    "more digits than a double has": (
        '{"name":"look","arguments":{"name":"a","n":0.1000000000000000055511151231257827}}'
    ),
    "lone surrogate": '{"name":"look","arguments":{"name":"a\\ud800"}}',
    "lone surrogate in a name": '{"name":"look","arguments":{"name":"a","\\udfff":1}}',
    "unknown parameter": '{"name":"look","arguments":{"name":"a"},"tool":"put"}',
    "arguments as a text": '{"name":"look","arguments":"{\\"name\\":\\"a\\"}"}',
    "arguments as a list": '{"name":"look","arguments":[["name","a"]]}',
    "arguments null": '{"name":"look","arguments":null}',
    "name as a list": '{"name":["look"],"arguments":{"name":"a"}}',
    "no name": '{"arguments":{"name":"a"}}',
}


@pytest.mark.attack("X25", "X36")
@pytest.mark.parametrize("params", TWO_READINGS.values(), ids=TWO_READINGS.keys())
async def test_what_two_parsers_read_differently_goes_no_further(
    line: Callable[..., Line], params: str
) -> None:
    made = line()
    told = await pushed(made, frame(params))
    assert told
    assert "permit" not in told
    assert made.server.called == []


RAW = {
    "byte order mark": b"\xef\xbb\xbf" + frame(READ),
    "UTF-16": frame(READ).decode().encode("utf-16-le"),
    "overlong encoding": frame(READ).replace(b"look", b"\xc1\xacook"),
    "encoded surrogate": frame(READ).replace(b'"a"', b'"\xed\xa0\x80"'),
    "NUL": frame(READ).replace(b'"a"', b'"\x00"'),
    "raw tabulator": frame(READ).replace(b'"a"', b'"\t"'),
    "batch": b"[" + frame(READ) + b"]",
    "two messages on a line": frame(READ) + frame(WRITE, id="2"),
    "trailing data": frame(READ) + b" x",
    "half a message": frame(READ)[:-7],
    "comment": frame(READ)[:-1] + b"/* */}",
    "single quotes": frame(READ).replace(b'"', b"'"),
    "trailing comma": frame(READ)[:-1] + b",}",
    "deep": frame('{"name":"look","arguments":{"name":' + "[" * 90 + "]" * 90 + "}}"),
    "deeper than any parser": b'{"a":' * 200_000,
    "long number": frame('{"name":"look","arguments":{"name":"a","n":' + "9" * 5000 + "}}"),
    "id that is true": frame(READ, id="true"),
    "id that is null": frame(READ, id="null"),
    "id with a fraction": frame(READ, id="1.0"),
    "id that is an object": frame(READ, id='{"a":1}'),
    "id beyond 2^53": frame(READ, id="9007199254740993"),
    "ids": frame(READ, id='1,"id":2'),
    "another version": frame(READ).replace(b'"2.0"', b'"2.1"'),
    "no version": frame(READ).replace(b'"jsonrpc":"2.0",', b""),
    "method in two cases": frame(READ, method='ping","Method":"tools/call'),
    "request that is an answer as well": frame(READ)[:-1] + b',"result":{}}',
}


@pytest.mark.attack("X25", "X36")
@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_what_is_no_one_message_is_answered_with_an_error_and_goes_no_further(
    line: Callable[..., Line], raw: bytes
) -> None:
    made = line()
    with made.task():
        got = await made.raw(raw)
    assert [each["error"]["code"] in (PARSE_ERROR, INVALID_REQUEST) for each in got] == [True]
    assert made.server.raws == []


@pytest.mark.attack("X25")
@pytest.mark.parametrize("number", ["0.00001", "1e-7", "1e-07", "0.1", "-2.5", "17"])
async def test_a_number_as_some_language_writes_it_by_itself_passes(
    line: Callable[..., Line], number: str
) -> None:
    wire = {**LOOK, "inputSchema": {"type": "object", "properties": {"n": {"type": "number"}}}}
    made = line(tools=[known(wire)], server=HostileServer(wire))
    assert await pushed(made, frame(f'{{"name":"look","arguments":{{"n":{number}}}}}')) == [
        "permit"
    ]


@pytest.mark.attack("X36")
async def test_allowed_bytes_go_on_and_come_back_as_they_are(line: Callable[..., Line]) -> None:
    made = line()
    odd = '{"name" :"look","arguments":{"name":"\\u0061\\/ \xe9\U0001f600"} ,"_meta":{"x":[1.5]}}'
    made.server.answers["tools/call"] = lambda message: None
    answer = b'{"jsonrpc":"2.0" , "id":1,"result":{"content":[],"x":1.50,"y":"\xc3\xa9\\u0041"}}'
    with made.task():
        await made.relay.from_client(frame(odd) + b"\r\n")
        await made.server.heard("tools/call")
        await made.server.say(answer)
        await made.quiet()

    assert made.server.raws[-1] == frame(odd)
    assert made.raws[-1] == answer
