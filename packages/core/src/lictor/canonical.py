"""Arguments and definitions as JSON: one copy, one view, one byte form.

Rules enforced here:

1. What is checked is a copy nobody else holds, and the copy is what runs (`take`).
2. Only types whose JSON view is certain are accepted; everything else is refused, never guessed.
3. Two values with the same canonical bytes (RFC 8785) have the same digest, and only those.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from uuid import UUID

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer two JSON decoders agree on (RFC 8259 §6, I-JSON RFC 7493 §2.2)."""
MAX_DEPTH: Final = 32
MAX_NODES: Final = 20_000
MAX_BYTES: Final = 1_048_576
"""Largest canonical size of one call's arguments, in bytes."""


class InputInvalid(ValueError):
    """Arguments that cannot be checked.

    Attributes:
        path: Where in the arguments, as `a.b[2]`; empty for the whole.
        problem: What is wrong, in words fit for the model (no value is quoted).
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"argument {path}: {problem}" if path else f"arguments: {problem}")


def canonical(value: Json) -> bytes:
    """The one byte form of a JSON value (RFC 8785).

    The standard encoder writes the same bytes as RFC 8785, except for floats, for integers beyond
    2^53-1 (which are refused) and for the order of names with characters beyond the basic plane.
    What might hold one of these goes to the reference library; a property test compares both.

    Raises:
        InputInvalid: NaN, infinity, an integer beyond 2^53-1, or a lone surrogate.
    """
    try:
        if _plain(value):
            text = _encode(value)
            if text.isascii() or max(text) <= "\uffff":
                return text.encode()
        import rfc8785

        return rfc8785.dumps(value)
    except (UnicodeEncodeError, ValueError) as error:
        raise InputInvalid("", f"cannot be written as canonical JSON: {error}") from None


_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


def _plain(value: Json) -> bool:
    """Whether it holds no float and no large integer; unrolled, since every call pays for it."""
    kind = type(value)
    if kind is dict:
        for item in value.values():  # type: ignore[union-attr]
            if type(item) is not str and not _plain(item):
                return False
        return True
    if kind is list:
        for item in value:  # type: ignore[union-attr]
            if type(item) is not str and not _plain(item):
                return False
        return True
    if kind is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER  # type: ignore[operator]
    return kind is str or kind is bool or value is None


def digest(value: Json) -> str:
    """`sha256:` and the hex SHA-256 of the canonical bytes."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Arguments:
    """One call's arguments: the copy that will run and its JSON view that is decided on.

    Attributes:
        values: Private deep copy, Python values as the host bound them. Runs if allowed.
        view: The same as plain JSON. Schema, limits, policy and digest see only this.
        encoded: Canonical bytes of `view`.
    """

    values: dict[str, object]
    view: dict[str, Json]
    encoded: bytes


def take(arguments: Mapping[str, object]) -> Arguments:
    """Copies arguments and derives their JSON view in one walk.

    Args:
        arguments: What the host is about to pass, after binding, defaults and coercion.

    Returns:
        The copy, its view and its canonical bytes.

    Raises:
        InputInvalid: A type whose view is not certain, a non-string key, NaN or infinity, an
            integer beyond 2^53-1, a lone surrogate, or too deep, too many or too large values.
    """
    walk = _Walk()
    values: dict[str, object] = {}
    view: dict[str, Json] = {}
    for name, value in arguments.items():
        if type(name) is not str:
            raise InputInvalid("", "a name is not a string")
        values[name], view[name] = walk.take(value, name, 1)
    encoded = canonical(view)
    if len(encoded) > MAX_BYTES:
        raise InputInvalid("", f"larger than {MAX_BYTES} bytes")
    return Arguments(values, view, encoded)


_TEXTUAL = (datetime, date, day_time, UUID, PurePath)


class _Walk:
    """Copies and views one argument tree, counting as it goes."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_NODES

    def take(self, value: object, path: str, depth: int) -> tuple[object, Json]:
        self.left -= 1
        if self.left < 0:
            raise InputInvalid("", f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise InputInvalid(path, f"nested deeper than {MAX_DEPTH}")
        kind = type(value)
        if kind is str:
            return value, _text(value, path)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value, value  # type: ignore[return-value]
        if kind is int:
            return value, _integer(value, path)  # type: ignore[arg-type]
        if kind is float:
            if not math.isfinite(value):  # type: ignore[arg-type]
                raise InputInvalid(path, "is not a finite number")
            return value, value  # type: ignore[return-value]
        if kind is dict:
            return self._dict(value, path, depth)  # type: ignore[arg-type]
        if kind is list or kind is tuple:
            return self._list(value, path, depth)  # type: ignore[arg-type]
        return self._rich(value, path, depth)

    def _dict(self, value: dict[object, object], path: str, depth: int) -> tuple[object, Json]:
        copied: dict[str, object] = {}
        viewed: dict[str, Json] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise InputInvalid(path, "has a name that is not a string")
            _text(key, path)
            copied[key], viewed[key] = self.take(item, f"{path}.{key}", depth + 1)
        return copied, viewed

    def _list(self, value: Sequence[object], path: str, depth: int) -> tuple[object, Json]:
        pairs = [self.take(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]
        copied = [pair[0] for pair in pairs]
        return (copied if type(value) is list else tuple(copied)), [pair[1] for pair in pairs]

    def _rich(self, value: object, path: str, depth: int) -> tuple[object, Json]:
        """Values that pydantic, dataclasses and the standard library make from JSON."""
        kind = type(value)
        if isinstance(value, Enum):
            return value, self.take(value.value, path, depth + 1)[1]
        if kind in _TEXTUAL or (isinstance(value, PurePath) and kind.__module__ == "pathlib"):
            return value, _text(_written(value), path)
        if kind is Decimal:
            return value, _decimal(value, path)  # type: ignore[arg-type]
        if kind is timedelta:
            return value, value.total_seconds()  # type: ignore[attr-defined]
        if kind is bytes:
            return value, b64encode(value).decode()  # type: ignore[arg-type]
        if kind is set or kind is frozenset:
            viewed = [self.take(item, path, depth + 1)[1] for item in value]  # type: ignore[attr-defined]
            return copy.deepcopy(value), sorted(viewed, key=canonical)
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            copied = value.model_copy(deep=True)
            return copied, self.take(_fields(copied), path, depth + 1)[1]
        if kind.__module__.startswith("pydantic") and kind.__name__.endswith(("Url", "Dsn")):
            return value, _text(str(value), path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            copied = copy.deepcopy(value)
            fields = {f.name: getattr(copied, f.name) for f in dataclasses.fields(copied)}
            return copied, self.take(fields, path, depth + 1)[1]
        raise InputInvalid(path, f"has a type that cannot be checked ({kind.__qualname__})")


def _fields(model: Any) -> object:
    """What a body can see of a pydantic model: every field, also those a serializer leaves out."""
    if isinstance(model, sys.modules["pydantic"].RootModel):
        return model.root
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return {**fields, **(model.model_extra or {})}


def _decimal(value: Decimal, path: str) -> Json:
    """A number where JSON has the same one, so that limits and policy can compare it; else text."""
    if not value.is_finite():
        raise InputInvalid(path, "is not a finite number")
    number = float(value)
    if math.isfinite(number) and Decimal(repr(number)) == value:
        return number
    return str(value)


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, date | day_time) else str(value)


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputInvalid(path, "holds a lone surrogate (not valid Unicode)") from None
    return value


def _integer(value: int, path: str) -> int:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InputInvalid(path, "is an integer beyond 2^53-1")
    return value


def frozen(value: Json) -> object:
    """A read-only view of a JSON value, for definitions that must not change after pinning."""
    if isinstance(value, dict):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    return value


def thawed(value: object) -> Json:
    """The JSON value behind `frozen`."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [thawed(item) for item in value]
    return value  # type: ignore[return-value]
