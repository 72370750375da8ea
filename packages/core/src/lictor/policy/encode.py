"""From the facts of a call to Cedar's context, for exactly the parts that policies read.

A call is read in two steps: `Encoder.read` checks types and collects the parts as one hashable key
(all a memo hit needs, since an equal key has been through the rest), `Encoder.write` checks the
rest and turns the key into Cedar's JSON.

Rules enforced here:

1. Nothing the model wrote can become an entity or an extension value: the names Cedar treats
   specially are refused at every depth, and only this module writes them.
2. Every part is checked against the type the schema gives it; what does not fit is refused, never
   converted by guess. `true` is no number, a number beyond four decimal places is no `decimal`.
3. Text is refused unless it is in Unicode form NFC, in the canonical form of its format, and small.
4. Equal keys mean equal contexts: lists become sets, numbers one spelling, absent stays absent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import Any, Final, TypeAlias

from lictor.canonical import MAX_INTEGER
from lictor.policy.refuse import Refused, checked_text, decimal_text, formed
from lictor.policy.schema import principal_uid
from lictor.policy.shape import Path, Record, Scalar, SetOf, Shape
from lictor.ports import Query

ABSENT: Final = None
"""Stands in a key for what is not there; Cedar has no null."""

Reader: TypeAlias = Callable[[Any, str], Hashable]
Writer: TypeAlias = Callable[[Any, str], str]


# -- reading: types only, and cheap ---------------------------------------------------------------


def _typed(kinds: frozenset[type], problem: str) -> Reader:
    def read(value: object, at: str) -> Hashable:
        if type(value) not in kinds:
            raise Refused("input_invalid", f"{at}: {problem}")
        return value

    return read


def _long(value: object, at: str) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) <= MAX_INTEGER:
        return int(value)
    raise Refused("input_invalid", f"{at}: is not an integer")


_text: Final = _typed(frozenset({str}), "is not a string")
_READERS: Final[Mapping[str, Reader]] = {
    "String": _text,
    "Long": _long,
    "Bool": _typed(frozenset({bool}), "is not true or false"),
    "decimal": _typed(frozenset({int, float, str}), "is not a number"),
}


def reader(shape: Shape, at: str = "") -> Reader:
    """The function that checks the type of a value and gives its part of the key.

    Args:
        shape: The type.
        at: Where it stands, as `home.city`; empty for the arguments as a whole.
    """
    match shape:
        case Scalar():
            return _READERS[shape.type]
        case SetOf():
            return _set(reader(shape.element, f"{at}[]"))
        case Record(form=""):
            return _record(shape, f"{at}." if at else "")
        case Record():
            return _parts(shape)


def _set(inner: Reader) -> Reader:
    def read(value: object, at: str) -> Hashable:
        if type(value) is not list:
            raise Refused("input_invalid", f"{at}: is not a list")
        return frozenset([inner(item, f"{at}[{n}]") for n, item in enumerate(value)])

    return read


def _length(value: object, at: str) -> int:
    if type(value) is not list:
        raise Refused("input_invalid", f"{at}: is not a list")
    return len(value)


def _record(shape: Record, stem: str) -> Reader:
    parts = [
        (
            name := f.counts or f.name,
            f.required,
            _length if f.counts else reader(f.shape, stem + name),
            stem + name,
        )
        for f in shape.fields
    ]
    names = shape.names

    def read(value: object, at: str) -> Hashable:
        if not isinstance(value, Mapping):
            raise Refused("input_invalid", f"{at}: is not an object")
        if names is not None and not names.issuperset(value):
            raise Refused("input_invalid", f"{at}: has a name that its definition does not list")
        key: list[Hashable] = []
        for name, required, inner, here in parts:
            item = value.get(name)
            if item is not None:
                key.append(inner(item, here))
            elif required:
                raise Refused("input_invalid", f"{here}: is missing")
            else:
                key.append(ABSENT)
        return tuple(key)

    return read


def _parts(shape: Record) -> Reader:
    pick = [attrgetter(field.name) for field in shape.fields]

    def read(value: object, at: str) -> Hashable:
        parsed = formed(shape.form, checked_text(_text(value, at), at), at)
        return tuple([get(parsed) for get in pick])

    return read


# -- writing: what a memo hit has already been through ---------------------------------------------


def writer(shape: Shape, at: str = "", facts: bool = False) -> Writer:
    """The function that checks a part of the key in full and gives it as JSON.

    Args:
        shape: Its type.
        at: Where it stands.
        facts: It comes from the gate, not from the model.
    """
    match shape:
        case Scalar(type="String"):
            return _quote if facts else _string_writer(shape)
        case Scalar(type="Long"):
            return _long_writer(shape)
        case Scalar(type="Bool"):
            return lambda key, at: "true" if key is True else "false"
        case Scalar(type="decimal"):
            return _decimal
        case Scalar():
            head = f'{{"__entity":{{"type":"Lictor::{shape.type}","id":'
            return lambda key, at: f"{head}{_quote(key, at)}}}}}"
        case SetOf():
            inner = writer(shape.element, f"{at}[]", facts)
            return lambda key, at: f"[{','.join([inner(part, at) for part in key])}]"
        case Record():
            return _record_writer(shape, f"{at}." if at else "", facts)


def _quote(key: Any, at: str) -> str:
    return encode_basestring_ascii(key)


def _decimal(key: Any, at: str) -> str:
    return f'{{"__extn":{{"fn":"decimal","arg":"{decimal_text(key, at)}"}}}}'


def _string_writer(shape: Scalar) -> Writer:
    among, form = shape.among, shape.form

    def write(key: Any, at: str) -> str:
        text = checked_text(key, at)
        if form:
            formed(form, text, at)
        if among is not None and text not in among:
            raise Refused("input_invalid", f"{at}: is none of the values its definition lists")
        return encode_basestring_ascii(text)

    return write


def _long_writer(shape: Scalar) -> Writer:
    among = shape.among

    def write(key: Any, at: str) -> str:
        if among is not None and key not in among:
            raise Refused("input_invalid", f"{at}: is none of the values its definition lists")
        return str(int(key))

    return write


def _record_writer(shape: Record, stem: str, facts: bool) -> Writer:
    # Parts of a URL or an address were checked when the text was read.
    plain = facts or bool(shape.form)
    parts = [
        (f"{encode_basestring_ascii(f.name)}:", at := stem + f.name, writer(f.shape, at, plain))
        for f in shape.fields
    ]

    def write(key: Any, at: str) -> str:
        return (
            "{"
            + ",".join(
                [
                    head + inner(part, name)
                    for (head, name, inner), part in zip(parts, key, strict=True)
                    if part is not None
                ]
            )
            + "}"
        )

    return write


# -- reading facts --------------------------------------------------------------------------------


def _user(query: Query) -> str | None:
    user = query.grant.user
    return None if user is None else principal_uid(user).id


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
    ("session", "spent"): attrgetter("session.spent"),
    ("met",): attrgetter("met"),
    ("now",): attrgetter("now"),
    ("assurance",): lambda query: query.assurance.value,
    ("autonomous",): attrgetter("autonomous"),
    ("claims",): _claims,
}


class Encoder:
    """Reads calls of one tool, as far as its policies do."""

    __slots__ = ("_readers", "_writers", "session")

    def __init__(self, shape: Record) -> None:
        """Prepares readers and writers.

        Args:
            shape: The context, cut down to what is read.
        """
        self._readers: list[Callable[[Query], Hashable]] = []
        self._writers: list[tuple[str, str, Writer]] = []
        self.session: frozenset[str] = frozenset()
        for field in shape.fields:
            if field.name == "input":
                self._readers.append(_input(reader(field.shape)))
            elif isinstance(field.shape, Record):
                self._readers.append(_facts(field.name, field.shape))
                if field.name == "session":
                    self.session = frozenset(part.name for part in field.shape.fields)
            else:
                self._readers.append(_FACTS[(field.name,)])
            write = writer(field.shape, facts=field.name != "input")
            self._writers.append((f'"{field.name}":', field.name, write))

    def read(self, query: Query) -> tuple[Hashable, ...]:
        """What the policies read of this call, as a key: types checked, nothing more.

        Raises:
            Refused: A part has another type than its definition says.
        """
        return tuple([read(query) for read in self._readers])

    def write(self, key: tuple[Hashable, ...], met: frozenset[str] | None = None) -> str:
        """Cedar's context.

        Args:
            key: From `read`.
            met: Takes the place of the asks already answered, for the second pass.

        Raises:
            Refused: A part is not canonical, too long or too precise.
        """
        parts = []
        for (head, name, write), value in zip(self._writers, key, strict=True):
            fresh = met if met is not None and name == "met" else value
            parts.append(head + write(fresh, name))
        return "{" + ",".join(parts) + "}"


def _input(read: Reader) -> Callable[[Query], Hashable]:
    return lambda query: read(query.input, "arguments")


def _facts(name: str, shape: Record) -> Callable[[Query], Hashable]:
    if not shape.fields:
        return lambda query: ()
    picks = [_FACTS[name, part.name] for part in shape.fields]
    return lambda query: tuple([pick(query) for pick in picks])
