"""JSON-RPC over the wire: one reading, or none."""

from __future__ import annotations

import json

import pytest

from lictor_mcp import wire


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","id":"a","method":"ping","params":{}}\r\n', "request"),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', "notification"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', "result"),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"x"}}', "error"),
    ],
)
def test_each_kind_of_message_is_read(raw: bytes, kind: str) -> None:
    message = wire.parse(raw)
    assert message.kind == kind
    assert message.raw == raw.rstrip(b"\r\n")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", wire.PARSE_ERROR),
        (b"\xff", wire.PARSE_ERROR),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"x"}', wire.PARSE_ERROR),
        ('{"jsonrpc":"2.0","id":1,"method":"x"}'.encode("utf-16"), wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":{"b":1,"b":2}}}', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1e999}}', wire.PARSE_ERROR),
        (b"[" * 100_000, wire.PARSE_ERROR),
        (b'[{"jsonrpc":"2.0","id":1,"method":"x"}]', wire.INVALID_REQUEST),
        (b'"x"', wire.INVALID_REQUEST),
        (b'{"id":1,"method":"x"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","id":1,"method":"x"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"x"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":""}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","extra":1}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","result":{}}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"error":"no"}', wire.INVALID_REQUEST),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * 80 + b"1" + b"}" * 81,
            wire.INVALID_REQUEST,
        ),
    ],
)
def test_what_has_not_exactly_one_reading_is_refused(raw: bytes, code: int) -> None:
    with pytest.raises(wire.Malformed) as caught:
        wire.parse(raw)
    assert caught.value.code == code


def test_a_message_that_is_too_large_is_not_even_read() -> None:
    with pytest.raises(wire.Malformed, match="larger than 10 bytes"):
        wire.parse(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', max_bytes=10)


@pytest.mark.parametrize("number", ["1.0", "1e2", "-0", "1.50", "9007199254740993", "1E2"])
def test_a_number_in_another_spelling_is_noticed(number: str) -> None:
    assert wire.parse(_with(number)).loose


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "9007199254740991", "1e-07"])
def test_a_number_in_its_own_spelling_is_not(number: str) -> None:
    assert not wire.parse(_with(number)).loose


def test_ids_of_different_types_are_different() -> None:
    keys = {
        wire.parse(b'{"jsonrpc":"2.0","id":%b,"method":"x"}' % each).key for each in (b"1", b'"1"')
    }
    assert len(keys) == 2


def test_what_is_written_is_one_line_of_ascii() -> None:
    text = "a\nb\u2028\ud800\u202e"
    raw = wire.write(wire.answer(1, {"text": text}))
    assert raw.isascii()
    assert b"\n" not in raw
    assert json.loads(raw)["result"]["text"] == text


def _with(number: str) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":%b}}' % number.encode()


def test_only_the_bytes_of_meta_change_when_it_is_written_anew() -> None:
    raw = (
        b'{ "id" : 1,"jsonrpc":"2.0", "params" : {"a":{"_meta":{"x":1}},"b":1.50 , '
        b'"_m\\u0065ta" : {"x" : 2, "y":"\xc3\xa9"},"c":"\xc3\xa9"} , "method":"tools/call"}'
    )
    made = wire.with_meta(wire.parse(raw), {"y": "\u00e9"})
    assert made.raw == raw.replace(b'{"x" : 2, "y":"\xc3\xa9"}', b'{"y":"\\u00e9"}')
    assert made.params["_meta"] == {"y": "\u00e9"}


def test_the_meta_of_a_result_can_be_written_anew() -> None:
    made = wire.with_meta(wire.parse(b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{"x":1}}}'), {})
    assert made.raw == b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{}}}'


@pytest.mark.parametrize("name", ["lictor/grant", "Lictor/Grant", "l\\u0069ctor/proof"])
def test_a_member_in_which_authority_travels_is_noticed_anywhere(name: str) -> None:
    text = '{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[{"_meta":{"%s":1}}]}}'
    assert wire.parse((text % name).encode()).ours
    assert not wire.parse((text % "lictor").encode()).ours
