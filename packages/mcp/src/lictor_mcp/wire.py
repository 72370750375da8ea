"""JSON-RPC messages as they come over the wire: one strict reading, for deciding and forwarding.

Rules enforced here:

1. Bytes have one reading: strict UTF-8, no duplicate names, no numbers that are none, no batch, no
   unknown member of a message. What another parser could read differently is refused, not repaired.
2. Size and depth are bounded before anything looks inside.
3. An id is a text or a whole number, and `1`, `"1"` and `true` are three things.
4. A message is one line wherever it goes: readers disagree which characters end a line, so that one
   which we read as one message could be several to somebody else. Line ends of Unicode in a text
   go on in their escaped spelling, which says the same.
5. What is written is ASCII: no character of a message can break a line or a parser.
6. `_meta` can be written anew; every other byte of the message stays as it came.

Sources: JSON-RPC 2.0; RFC 8259; MCP 2025-11-25 and 2026-07-28 (no batches).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from lictor.canonical import MAX_INTEGER, Json

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
DENIED: Final = -32003
"""Ours: the call was refused. Not one that clients repeat by themselves."""

_decoder: Final = json.JSONDecoder()
_SPACE: Final = b" \t\r\n"
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
"""In JSON both can stand between parts only, where a space says the same."""

_UNICODE_ENDS: Final = (
    (b"\xc2\x85", b"\\u0085"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
"""These can stand in texts only; many readers of lines (httpx, `str.splitlines`) end one there."""

OURS: Final = frozenset({"lictor/grant", "lictor/proof"})
"""Members of `_meta` in which authority travels between parts of Lictor, and to nobody else."""

Id: TypeAlias = str | int
_MEMBERS: Final = {
    "request": {"jsonrpc", "id", "method", "params"},
    "notification": {"jsonrpc", "method", "params"},
    "result": {"jsonrpc", "id", "result"},
    "error": {"jsonrpc", "id", "error"},
}


class Malformed(ValueError):
    """A message that has no one reading.

    Attributes:
        code: JSON-RPC error code.
        problem: What is wrong, quoting nothing of it.
        id: Of the message, where it could be read; the answer goes there.
    """

    def __init__(self, code: int, problem: str, id: Id | None = None) -> None:
        self.code, self.problem, self.id = code, problem, id
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        kind: `request`, `notification`, `result` or `error`.
        value: The whole of it; never changed in place.
        raw: As it came, without white space around it, with spaces for line ends between its
            parts, and with line ends of Unicode escaped.
        loose: Other parsers may hand a tool something else: a number is not in its canonical
            spelling (`1.0`, `1e2`, `-0`), or names of one object differ in nothing but case.
        ours: Some object in it has a member of `OURS`.
    """

    kind: str
    value: Mapping[str, Any]
    raw: bytes
    loose: bool = False
    ours: bool = False

    @property
    def id(self) -> Id | None:
        """The id; `None` for a notification, and for an error about what could not be read."""
        return self.value.get("id")

    @property
    def key(self) -> tuple[str, Id | None]:
        """The id with its type: what requests and answers are matched by."""
        return type(self.id).__name__, self.id

    @property
    def method(self) -> str:
        """The method; empty for an answer."""
        return str(self.value.get("method", ""))

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters; empty where there are none."""
        found: Mapping[str, Any] = self.value.get("params", {})
        return found

    @property
    def result(self) -> Any:
        """The result of an answer."""
        return self.value.get("result")


def parse(raw: bytes, *, max_bytes: int = MAX_BYTES) -> Message:
    """Reads one message.

    Raises:
        Malformed: It has not exactly one reading, or is none; says what is wrong.
    """
    if len(raw) > max_bytes:
        raise Malformed(INVALID_REQUEST, f"is larger than {max_bytes} bytes")
    seen = _Seen()
    try:
        text = raw.decode("utf-8")
        if text.startswith("\ufeff"):
            raise Malformed(PARSE_ERROR, "starts with a byte order mark")
        value = json.loads(
            text,
            object_pairs_hook=seen.members,
            parse_constant=_no_constant,
            parse_float=seen.fraction,
            parse_int=seen.whole,
        )
    except Malformed as bad:
        bad.id = _id_of(text)
        raise
    except UnicodeDecodeError:
        raise Malformed(PARSE_ERROR, "is not UTF-8") from None
    except (ValueError, RecursionError):
        raise Malformed(PARSE_ERROR, "is not JSON, or nested too deep") from None
    if isinstance(value, list):
        raise Malformed(INVALID_REQUEST, "is a batch, which MCP does not have")
    if not isinstance(value, dict):
        raise Malformed(INVALID_REQUEST, "is no object")
    _refuse_deep(value)
    return Message(_kind(value), value, _line(raw), seen.loose, seen.ours)


def _line(raw: bytes) -> bytes:
    line = raw.strip(_SPACE).translate(_ONE_LINE)
    if not line.isascii():
        for end, spelled in _UNICODE_ENDS:
            line = line.replace(end, spelled)
    return line


def with_meta(message: Message, meta: Mapping[str, Any]) -> Message:
    """The same message with another `_meta`; all its other bytes stay as they came.

    Args:
        message: A request, a notification, or an answer that is no error.
        meta: What stands there instead of its own, or where it had none.

    Raises:
        Malformed: It has become too large.
    """
    text, written = message.raw.decode(), write(meta).decode()
    inside = "result" if "result" in message.value else "params"
    if inside not in message.value:
        return parse(f'{text[:-1]},"params":{{"_meta":{written}}}}}'.encode())
    start, end = _place(text, 0, inside)
    if "_meta" in message.value[inside]:
        start, end = _place(text, start, "_meta")
    else:
        more = "," if message.value[inside] else ""
        written, start, end = f'"_meta":{written}{more}', start + 1, start + 1
    return parse(f"{text[:start]}{written}{text[end:]}".encode())


def _place(text: str, at: int, wanted: str) -> tuple[int, int]:
    """Where the value of this member stands, in the object that starts there and has it."""
    while True:
        name, at = _decoder.raw_decode(text, _after_space(text, at + 1))
        at = _after_space(text, _after_space(text, at) + 1)
        _, end = _decoder.raw_decode(text, at)
        if name == wanted:
            return at, end
        at = _after_space(text, end)


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


class _Seen:
    """Reads numbers and names, and notices what other readers could take for something else."""

    def __init__(self) -> None:
        self.loose = self.ours = False

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise Malformed(PARSE_ERROR, "names a member twice")
        # Some parsers (Go's) match names without regard to case; the last one wins.
        folded = {name.casefold() for name in made}
        self.loose = self.loose or len(folded) != len(made)
        self.ours = self.ours or not folded.isdisjoint(OURS)
        return made

    def whole(self, text: str) -> int:
        if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
            self.loose = True  # beyond what every parser keeps exact
            if len(text) > 300:
                raise Malformed(PARSE_ERROR, "holds a number that is too long")
        found = int(text)
        self.loose = self.loose or text == "-0"
        return found

    def fraction(self, text: str) -> float:
        found = float(text)
        if found in (float("inf"), float("-inf")):
            raise Malformed(PARSE_ERROR, "holds a number that is too large")
        self.loose = self.loose or found.is_integer() or text not in _spellings(found)
        return found


def _spellings(number: float) -> tuple[str, str]:
    """As Python writes it, and as RFC 8785 does; they differ where there is an exponent."""
    short = json.dumps(number)
    if "e" not in short:
        return short, short
    import rfc8785

    return short, rfc8785.dumps(number).decode()


def _id_of(text: str) -> Id | None:
    """The id of what cannot be read as a whole, where exactly one stands there."""
    with contextlib.suppress(ValueError, RecursionError):
        pairs = json.loads(text, object_pairs_hook=_Pairs)
        if isinstance(pairs, _Pairs):
            found = [value for name, value in pairs if name == "id"]
            return _id({"id": found[0]}) if len(found) == 1 else None
    return None


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, doubled ones too."""


def _no_constant(name: str) -> None:
    raise Malformed(PARSE_ERROR, "holds a number that JSON does not have")


def _refuse_deep(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            each
            for part in level
            for each in (part.values() if isinstance(part, dict) else part)  # type: ignore[attr-defined]
            if isinstance(each, dict | list)
        ]
        if not level:
            return
    raise Malformed(INVALID_REQUEST, "is nested too deep")


def _kind(value: dict[str, Any]) -> str:
    found = _id(value)
    if value.get("jsonrpc") != "2.0":
        raise Malformed(INVALID_REQUEST, "is not JSON-RPC 2.0", found)
    kind = _sort(value, found)
    more = value.keys() - _MEMBERS[kind]
    if more:
        raise Malformed(INVALID_REQUEST, "has members that the protocol does not have", found)
    if "id" in value and found is None and (kind != "error" or value["id"] is not None):
        raise Malformed(INVALID_REQUEST, "has an id that is neither a text nor a whole number")
    if "params" in value and not isinstance(value["params"], dict):
        raise Malformed(INVALID_REQUEST, "has params that are no object", found)
    return kind


def _sort(value: dict[str, Any], found: Id | None) -> str:
    if "method" in value:
        if not isinstance(value["method"], str) or not value["method"]:
            raise Malformed(INVALID_REQUEST, "has a method that is no text", found)
        return "request" if "id" in value else "notification"
    answers = {"result", "error"} & value.keys()
    if len(answers) != 1 or "id" not in value:
        raise Malformed(INVALID_REQUEST, "is neither a request nor an answer", found)
    kind = answers.pop()
    if kind == "error" and not _is_error(value["error"]):
        raise Malformed(INVALID_REQUEST, "has an error that is none", found)
    return kind


def _is_error(error: object) -> bool:
    return (
        isinstance(error, dict)
        and type(error.get("code")) is int
        and type(error.get("message")) is str
    )


def _id(value: dict[str, Any]) -> Id | None:
    found = value.get("id")
    if type(found) is int and abs(found) <= MAX_INTEGER:
        return found
    return found if type(found) is str else None


def write(value: Mapping[str, Any]) -> bytes:
    """A message as bytes: ASCII, on one line, without its line end."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


def answer(to: Id | None, result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": to, "result": result}


def error(to: Id | None, code: int, message: str, data: Json = None) -> dict[str, Any]:
    """The refusal of a request."""
    told: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        told["data"] = data
    return {"jsonrpc": "2.0", "id": to, "error": told}
