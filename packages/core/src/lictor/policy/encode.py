"""From the facts of a call to Cedar's context, for exactly the parts that policies read.

A call is read in two steps: `Encoder.read` checks and collects the parts as one hashable key (all
a memo hit needs), `Encoder.write` turns that key into Cedar's JSON.

Rules enforced here:

1. Nothing the model wrote can become an entity or an extension value: the names Cedar treats
   specially are refused at every depth, and only this module writes them.
2. Every part is checked against the type the schema gives it; what does not fit is refused, never
   converted by guess. `true` is no number, a number beyond four decimal places is no `decimal`.
3. Text is refused unless it is in Unicode form NFC, in the canonical form of its format, and small.
4. Equal keys mean equal contexts: lists become sets, numbers one spelling, absent stays absent.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, TypeAlias

from lictor import forms
from lictor.model import MAX_INTEGER, Json
from lictor.policy.schema import principal_uid
from lictor.policy.shape import Path, Record, Scalar, SetOf, Shape
from lictor.ports import Query

MAX_TEXT: Final = 65_536
"""Longest text that a policy may read, in bytes."""
ESCAPES: Final = frozenset({"__entity", "__extn", "__expr"})
"""Names that Cedar's JSON form gives a meaning of its own."""
ABSENT: Final = None
"""Stands in a key for what is not there; Cedar has no null."""

Reader: TypeAlias = Callable[[Any, str], Hashable]
_MAX_DECIMAL: Final = Decimal("922337203685477.5807")
_NUMERAL: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")


class Refused(Exception):
    """A call that cannot be put before the policies.

    Attributes:
        code: `input_invalid`, `not_canonical` or `policy_error`.
        detail: Which argument, what is wrong, and its canonical form where there is one.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


def refuse_escapes(value: Json, at: str = "") -> None:
    """Refuses names that Cedar would turn into entities, extension values or expressions."""
    if type(value) is dict:
        for name, item in value.items():
            if name in ESCAPES:
                raise Refused("input_invalid", f"{at or 'arguments'}: the name {name} is reserved")
            if type(item) is dict or type(item) is list:
                refuse_escapes(item, f"{at}.{name}" if at else name)
    elif type(value) is list:
        for item in value:
            if type(item) is dict or type(item) is list:
                refuse_escapes(item, f"{at}[]")


def decimal_text(value: object, at: str) -> str:
    """A number as Cedar's `decimal`, in one spelling with four places."""
    number = _number(value, at)
    if not number.is_finite() or abs(number) > _MAX_DECIMAL:
        raise Refused("input_invalid", f"{at}: is too large for a policy to compare")
    spelled = f"{number:.4f}"
    if Decimal(spelled) != number:
        raise Refused("input_invalid", f"{at}: has more than four decimal places")
    return "0.0000" if number == 0 else spelled


def _number(value: object, at: str) -> Decimal:
    kind = type(value)
    if kind is int or kind is Decimal:
        return Decimal(value)  # type: ignore[arg-type]
    if kind is float:
        return Decimal(repr(value))
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        return Decimal(value)
    raise Refused("input_invalid", f"{at}: is not a number")


# -- reading arguments ----------------------------------------------------------------------------


def _text(value: object, at: str) -> str:
    if type(value) is not str:
        raise Refused("input_invalid", f"{at}: is not a string")
    if not value.isascii():
        if len(value.encode()) > MAX_TEXT:
            raise Refused("input_invalid", f"{at}: is longer than {MAX_TEXT} bytes")
        if not unicodedata.is_normalized("NFC", value):
            raise Refused("not_canonical", f"{at}: is not in Unicode form NFC")
    elif len(value) > MAX_TEXT:
        raise Refused("input_invalid", f"{at}: is longer than {MAX_TEXT} bytes")
    return value


def _long(value: object, at: str) -> int:
    if type(value) is float and value.is_integer() and abs(value) <= MAX_INTEGER:
        return int(value)
    if type(value) is not int:
        raise Refused("input_invalid", f"{at}: is not an integer")
    return value


def _bool(value: object, at: str) -> bool:
    if type(value) is not bool:
        raise Refused("input_invalid", f"{at}: is not true or false")
    return value


def _formed(form: str, value: object, at: str) -> Any:
    text = _text(value, at)
    try:
        return forms.FORMS[form](text)
    except forms.NotCanonical as error:
        hint = f"; write {forms.visible(error.canonical)}" if error.canonical else ""
        raise Refused("not_canonical", f"{at}: {error.problem}{hint}") from None


_READERS: Final[Mapping[str, Reader]] = {
    "String": _text,
    "Long": _long,
    "Bool": _bool,
    "decimal": decimal_text,
}


def reader(shape: Shape) -> Reader:
    """The function that checks a value of this type and gives its part of the key."""
    match shape:
        case Scalar(form="path"):
            return lambda value, at: _formed("path", value, at)
        case Scalar(among=None):
            return _READERS[shape.type]
        case Scalar():
            return _among(shape)
        case SetOf():
            return _set(shape)
        case Record(form=""):
            return _record(shape)
        case Record():
            return _parts(shape)


def _among(shape: Scalar) -> Reader:
    inner, among = _READERS[shape.type], shape.among or frozenset()

    def read(value: object, at: str) -> Hashable:
        key = inner(value, at)
        if key not in among:
            raise Refused("input_invalid", f"{at}: is none of the values its definition lists")
        return key

    return read


def _set(shape: SetOf) -> Reader:
    inner = reader(shape.element)

    def read(value: object, at: str) -> Hashable:
        if type(value) is not list:
            raise Refused("input_invalid", f"{at}: is not a list")
        return frozenset([inner(item, f"{at}[{n}]") for n, item in enumerate(value)])

    return read


def _length(value: object, at: str) -> int:
    if type(value) is not list:
        raise Refused("input_invalid", f"{at}: is not a list")
    return len(value)


def _record(shape: Record) -> Reader:
    parts = [
        (f.counts or f.name, f.required, _length if f.counts else reader(f.shape))
        for f in shape.fields
    ]
    names = shape.names

    def read(value: object, at: str) -> Hashable:
        if not isinstance(value, Mapping):
            raise Refused("input_invalid", f"{at}: is not an object")
        if names is not None and not names.issuperset(value):
            raise Refused("input_invalid", f"{at}: has a name that its definition does not list")
        key: list[Hashable] = []
        for name, required, inner in parts:
            item = value.get(name)
            if item is not None:
                key.append(inner(item, f"{at}.{name}"))
            elif required:
                raise Refused("input_invalid", f"{at}.{name}: is missing")
            else:
                key.append(ABSENT)
        return tuple(key)

    return read


def _parts(shape: Record) -> Reader:
    pick = [attrgetter(field.name) for field in shape.fields]

    def read(value: object, at: str) -> Hashable:
        parsed = _formed(shape.form, value, at)
        return tuple(get(parsed) for get in pick)

    return read


# -- reading facts --------------------------------------------------------------------------------


def _user(query: Query) -> str | None:
    user = query.grant.user
    return None if user is None else principal_uid(user).id


def _spent(query: Query) -> str:
    return decimal_text(query.session.spent, "session.spent")


def _claims(query: Query) -> frozenset[str]:
    if any("=" in name for name in query.claims):
        raise Refused("policy_error", "claims: a name holds an equals sign")
    return frozenset(f"{name}={value}" for name, value in query.claims.items())


_FACTS: Final[Mapping[Path, Callable[[Query], Hashable]]] = {
    ("grant", "user"): _user,
    ("grant", "task"): attrgetter("grant.task"),
    ("grant", "tenant"): attrgetter("grant.tenant"),
    ("grant", "named"): attrgetter("grant.named"),
    ("grant", "limited"): attrgetter("grant.limited"),
    ("grant", "depth"): attrgetter("grant.depth"),
    ("grant", "expires"): attrgetter("grant.expires"),
    ("session", "labels"): attrgetter("session.labels"),
    ("session", "sources"): attrgetter("session.sources"),
    ("session", "calls"): attrgetter("session.calls"),
    ("session", "effects"): attrgetter("session.effects"),
    ("session", "spent"): _spent,
    ("met",): attrgetter("met"),
    ("now",): attrgetter("now"),
    ("assurance",): lambda query: query.assurance.value,
    ("autonomous",): attrgetter("autonomous"),
    ("claims",): _claims,
}


class Encoder:
    """Reads calls of one tool, as far as its policies do."""

    __slots__ = ("_shape", "_slots", "session")

    def __init__(self, shape: Record) -> None:
        """Prepares the readers.

        Args:
            shape: The context, cut down to what is read.
        """
        self._shape = shape
        self._slots: list[Callable[[Query], Hashable]] = []
        self.session: frozenset[str] = frozenset()
        for field in shape.fields:
            if field.name == "input":
                self._slots.append(_input(reader(field.shape)))
            elif isinstance(field.shape, Record):
                self._slots += [_FACTS[field.name, part.name] for part in field.shape.fields]
                if field.name == "session":
                    self.session = frozenset(part.name for part in field.shape.fields)
            else:
                self._slots.append(_FACTS[(field.name,)])

    def read(self, query: Query) -> tuple[Hashable, ...]:
        """What the policies read of this call, as a key.

        Raises:
            Refused: A part does not fit its type or form.
        """
        return tuple([read(query) for read in self._slots])

    def write(self, key: tuple[Hashable, ...], met: frozenset[str] | None = None) -> str:
        """Cedar's context.

        Args:
            key: From `read`.
            met: Takes the place of the asks already answered, for the second pass.
        """
        rest = iter(key)
        written: dict[str, Any] = {}
        for field in self._shape.fields:
            if field.name in ("grant", "session") and isinstance(field.shape, Record):
                parts = tuple(next(rest) for _ in field.shape.fields)
                written[field.name] = _written(field.shape, parts)
            else:
                value = next(rest)
                fresh = met if met is not None and field.name == "met" else value
                written[field.name] = _written(field.shape, fresh)
        return _dumps(written)


_dumps: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def _input(read: Reader) -> Callable[[Query], Hashable]:
    return lambda query: read(query.input, "input")


def _written(shape: Shape, key: Any) -> Any:
    match shape:
        case Record():
            return {
                field.name: _written(field.shape, part)
                for field, part in zip(shape.fields, key, strict=True)
                if part is not None
            }
        case SetOf():
            return [_written(shape.element, part) for part in key]
        case Scalar(type="decimal"):
            return {"__extn": {"fn": "decimal", "arg": key}}
        case Scalar(type="String" | "Long" | "Bool"):
            return key
    return {"__entity": {"type": f"Lictor::{shape.type}", "id": key}}
