"""Limits on one argument: what a grant or a rule may say, what it admits, and what is narrower.

Rules enforced here:

1. The algebra is closed: any, equals, one of, a range with both ends, string prefix, path under,
   URL under. Anything else is refused when it is read.
2. Types are exact: `true` is not 1, a string is never a number, NaN is in no range, and a list is
   admitted only as a whole (by any, equals, one of).
3. Numbers are compared as decimals, exactly as their JSON text says.
4. Paths and URLs are compared segment by segment, and only in their canonical form.
5. `narrower(child, parent)` is decided from the structure alone; it says yes only where every
   value the child admits is admitted by the parent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

from lictor import forms
from lictor.canonical import InputInvalid, Json, canonical, take
from lictor.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Any:
    """Every value."""


@dataclass(frozen=True, slots=True)
class Equals:
    """One JSON value, of any type."""

    value: Json = field(compare=False)
    encoded: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        encoded, value = _fixed(self.value)
        object.__setattr__(self, "encoded", encoded)
        object.__setattr__(self, "value", value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several JSON values; at least one."""

    values: tuple[Json, ...] = field(compare=False)
    encoded: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("one_of needs at least one value")
        fixed = [_fixed(value) for value in self.values]
        object.__setattr__(self, "encoded", frozenset(encoded for encoded, _ in fixed))
        object.__setattr__(self, "values", tuple(value for _, value in fixed))


def _fixed(value: Json) -> tuple[bytes, Json]:
    """Canonical bytes and a copy nobody else holds; refuses what does not read back alike."""
    encoded = canonical(value)
    copied = json.loads(encoded)
    canonical(copied)
    return encoded, copied


@dataclass(frozen=True, slots=True)
class Range:
    """A number from min to max, both included."""

    min: Decimal
    max: Decimal

    def __post_init__(self) -> None:
        if not (self.min.is_finite() and self.max.is_finite()):
            raise ValueError("both ends of a range are finite numbers")
        if self.min > self.max:
            raise ValueError("a range's min is above its max, so it admits nothing")


@dataclass(frozen=True, slots=True)
class Prefix:
    """A string that starts with this text. For paths and URLs use their own limits."""

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("an empty prefix limits nothing; write { any = true } to mean that")


@dataclass(frozen=True, slots=True)
class PathUnder:
    """A canonical path that is this directory or lies in it."""

    root: str

    def __post_init__(self) -> None:
        forms.path(self.root)


@dataclass(frozen=True, slots=True)
class UrlUnder:
    """A canonical URL with this scheme, host and port whose path is this one or lies below it."""

    url: str
    uri: forms.Uri = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        uri = forms.uri(self.url)
        if uri.query is not None:
            raise ValueError("a URL to stay under has no query")
        object.__setattr__(self, "uri", uri)


Limit: TypeAlias = Any | Equals | OneOf | Range | Prefix | PathUnder | UrlUnder


def admits(limit: Limit, value: Json) -> bool:
    """Whether a limit lets a value through. Whatever cannot be compared is not admitted."""
    match limit:
        case Any():
            return True
        case Equals() | OneOf():
            return _listed(limit, value)
        case Range():
            number = _decimal(value)
            return number is not None and limit.min <= number <= limit.max
        case Prefix():
            return isinstance(value, str) and value.startswith(limit.text)
        case PathUnder():
            return isinstance(value, str) and _path_under(value, limit.root)
        case UrlUnder():
            return isinstance(value, str) and _url_under(value, limit.uri)
    return False


def _listed(limit: Equals | OneOf, value: Json) -> bool:
    try:
        encoded = canonical(value)
    except (InputInvalid, TypeError, RecursionError):
        return False
    return encoded == limit.encoded if isinstance(limit, Equals) else encoded in limit.encoded


def _decimal(value: Json) -> Decimal | None:
    """The number a JSON text would say; `None` for what is not a finite number."""
    if type(value) is int:
        return Decimal(value)
    if type(value) is float:
        number = Decimal(repr(value))
        return number if number.is_finite() else None
    return None


def _path_under(value: str, root: str) -> bool:
    try:
        path = forms.path(value)
    except forms.NotCanonical:
        return False
    return path == root or path.startswith(root if root == "/" else root + "/")


def _url_under(value: str, base: forms.Uri) -> bool:
    try:
        return _below(forms.uri(value), base)
    except forms.NotCanonical:
        return False


def _below(uri: forms.Uri, base: forms.Uri) -> bool:
    if (uri.scheme, uri.host, uri.port) != (base.scheme, base.host, base.port):
        return False
    stem = base.path if base.path.endswith("/") else base.path + "/"
    return uri.path == base.path or uri.path.startswith(stem)


def narrower(child: Limit, parent: Limit) -> bool:
    """Whether the child admits nothing that the parent refuses, as far as structure shows it."""
    match child, parent:
        case _, Any():
            return True
        case Equals(), _:
            return admits(parent, child.value)
        case OneOf(), _:
            return all(admits(parent, value) for value in child.values)
        case Range(), Range():
            return parent.min <= child.min and child.max <= parent.max
        case Prefix(), Prefix():
            return child.text.startswith(parent.text)
        case PathUnder(), PathUnder():
            return _path_under(child.root, parent.root)
        case PathUnder(), Prefix():
            return child.root.startswith(parent.text)
        case UrlUnder(), UrlUnder():
            return _below(child.uri, parent.uri)
    return False


def describe(limit: Limit) -> str:
    """A limit in words, for people."""
    match limit:
        case Any():
            return "anything"
        case Equals():
            return f"exactly {_quoted(limit.value)}"
        case OneOf():
            return "one of " + ", ".join(map(_quoted, limit.values))
        case Range():
            return f"a number from {limit.min} to {limit.max}"
        case Prefix():
            return f"text that starts with {_quoted(limit.text)}"
        case PathUnder():
            return f"a path under {_quoted(limit.root)}"
        case UrlUnder():
            return f"a URL under {_quoted(limit.url)}"


def _quoted(value: Json) -> str:
    if isinstance(value, str):
        return f'"{forms.visible(value)}"'
    return forms.visible(json.dumps(value, ensure_ascii=False))


def to_json(limit: Limit) -> dict[str, Json]:
    """A limit as JSON; `parse` reads it back."""
    match limit:
        case Any():
            return {"any": True}
        case Equals():
            return {"equals": limit.value}
        case OneOf():
            return {"one_of": list(limit.values)}
        case Range():
            return {"min": str(limit.min), "max": str(limit.max)}
        case Prefix():
            return {"prefix": limit.text}
        case PathUnder():
            return {"path_under": limit.root}
        case UrlUnder():
            return {"url_under": limit.url}


_TABLES: Final = (
    frozenset({"any"}),
    frozenset({"equals"}),
    frozenset({"one_of"}),
    frozenset({"min", "max"}),
    frozenset({"prefix"}),
    frozenset({"path_under"}),
    frozenset({"url_under"}),
)
_WORDS: Final = sorted(frozenset().union(*_TABLES))
_HELP: Final = (
    'write a value, a list of values, or one of { min = "0", max = "500" }, { prefix = "inv-" }, '
    '{ path_under = "/data" }, { url_under = "https://api.example/v1" }, { equals = … }, '
    "{ one_of = […] }, { any = true }"
)


def parse(raw: object, where: str) -> Limit:
    """Reads a limit from TOML or JSON.

    A plain value means exactly that value, a list means one of its values, and a table names the
    operator: `{ min = "0", max = "500" }`, `{ prefix = "…" }` and so on.

    Args:
        raw: As read.
        where: File and key, for the error.

    Raises:
        ConfigError: Unknown operator, a range without both ends, or a value of a wrong type.
    """
    if not isinstance(raw, Mapping):
        raw = {"one_of" if isinstance(raw, list) else "equals": raw}
    keys = frozenset(map(str, raw))
    if keys not in _TABLES:
        raise ConfigError(where, *_unknown(keys))
    try:
        return _build(raw)
    except forms.NotCanonical as error:
        hint = f"write {error.canonical!r}" if error.canonical else "write its canonical form"
        raise ConfigError(where, error.problem, hint) from None
    except (ValueError, TypeError, InvalidOperation) as error:
        raise ConfigError(where, str(error) or "not a limit", _HELP) from None


def _unknown(keys: frozenset[str]) -> tuple[str, str]:
    import difflib

    if len(keys) == 1 and keys < {"min", "max"}:
        (given,), (missing,) = keys, {"min", "max"} - keys
        return (
            f"has {given} without {missing}: a range open at one end lets negative or huge "
            "amounts through",
            f"add {missing}",
        )
    for key in sorted(keys - set(_WORDS)):
        near = difflib.get_close_matches(key, _WORDS, 1)
        return f"unknown operator {key!r}", f"did you mean {near[0]!r}?" if near else _HELP
    return "names no operator, or two that do not go together", _HELP


def _build(raw: Mapping[str, object]) -> Limit:
    """Builds what a table with a known set of keys says."""
    if "min" in raw:
        return Range(_end(raw["min"]), _end(raw["max"]))
    ((word, value),) = raw.items()
    if word == "any":
        if value is not True:
            raise ValueError("any is written { any = true }")
        return Any()
    if word == "equals":
        return Equals(_json(value))
    if word == "one_of":
        if not isinstance(value, list | tuple):
            raise ValueError("one_of takes a list")
        return OneOf(tuple(map(_json, value)))
    if not isinstance(value, str):
        raise ValueError(f"{word} takes a string")
    return _TEXTUAL[word](value)


_TEXTUAL: Final[dict[str, type[Prefix] | type[PathUnder] | type[UrlUnder]]] = {
    "prefix": Prefix,
    "path_under": PathUnder,
    "url_under": UrlUnder,
}


def _json(value: object) -> Json:
    return take({"value": value}).view["value"]


def _end(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("min and max are numbers, best written as strings")
    try:
        return Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise ValueError("min and max are numbers, best written as strings") from None
