"""`catalog.toml` and `catalog.lock` as files: read, checked, never guessed.

Rules enforced here:

1. An unknown key, impact, format or argument does not load; the error offers the nearest names.
2. One tool has one entry, and one name of the lock one definition.
3. The pin of an entry is the digest of its locked definition.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lictor.catalog.propose import below_hint
from lictor.errors import ConfigError
from lictor.forms import FORMS
from lictor.model import Impact, Review, Tool, ToolKey
from lictor.ports import Known
from lictor.schema import SchemaRefused, compile

LABELS: Final = ("sensitive", "untrusted")
"""Labels that the starter guardrails know; a near miss of one is a typing error."""
_LABEL: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*tool[ \t]*\]\]", re.MULTILINE)


def _several(value: object) -> object:
    """One name may be written without a list."""
    return [value] if isinstance(value, str) else value


def _moment(value: object) -> object:
    """TOML has dates of its own."""
    return value.isoformat() if isinstance(value, date | datetime) else value


Names = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_several)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Entry(_Part):
    """`[[tool]]`."""

    server: str
    name: str
    impact: Names = []
    target: Names = []
    amount: str = ""
    recordable: Names = []
    produces: Names = []
    sources: Names = []
    formats: dict[str, str] = {}
    inputs: Names = []
    credentials: Names = []
    isolation: Literal["", "container"] = ""
    roots: Names = []
    blocked: bool = False
    pin: str = ""
    reviewer: str = ""
    reviewed_at: Annotated[str, BeforeValidator(_moment)] = ""
    reviewed_in: Literal["", "dev"] = ""


class ServerPart(_Part):
    """`[servers.x]`."""

    tenant: str = ""


class File(_Part):
    """The whole file."""

    tool: list[Entry] = []
    servers: dict[str, ServerPart] = {}


def read(path: Path) -> list[tuple[str, Review]]:
    """Reads `catalog.toml`.

    Returns:
        Each entry's place for errors, and what it says.

    Raises:
        ConfigError: It is not TOML, or a key, name or value is wrong.
    """
    return reviews(path, text_of(path))


def reviews(path: Path, text: str) -> list[tuple[str, Review]]:
    """The same for a text that may not be written yet; the path stands in errors."""
    file = parsed(path, text)
    lines = [text.count("\n", 0, match.start()) + 1 for match in _HEADER.finditer(text)]
    numbered = len(lines) == len(file.tool)
    found: dict[ToolKey, tuple[str, Review]] = {}
    for n, entry in enumerate(file.tool):
        at = f"{path}:{lines[n]}" if numbered else f"{path}: tool {n + 1}"
        review = _review(f"{at}: {entry.server}/{entry.name}", entry, file.servers, path.parent)
        if review.key in found:
            raise ConfigError(
                at,
                f"a second entry for {review.key} (the first: {found[review.key][0]})",
                "keep one of them",
            )
        found[review.key] = (f"{at}: {review.key}", review)
    return list(found.values())


def text_of(path: Path) -> str:
    """The text of a file that must be there."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(str(path), "does not exist", "lictor catalog lock writes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "check the file") from None


def parsed(path: Path, text: str) -> File:
    """The file as values.

    Raises:
        ConfigError: It is not TOML, or has unknown keys or values of a wrong kind.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}", "mend the line it names") from None
    try:
        return File.model_validate(raw)
    except ValidationError as error:
        raise _config_error(path, error, raw) from None


def _config_error(path: Path, error: ValidationError, raw: dict[str, Any]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    place = [str(step) for step in first["loc"]]
    where = ".".join(place)
    if place[0] == "tool" and len(place) > 1 and isinstance(raw["tool"], list):
        entry = raw["tool"][int(place[1])]
        if isinstance(entry, dict):
            where = f"{entry.get('server', '?')}/{entry.get('name', '?')}: {'.'.join(place[2:])}"
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{path}: {where}", first["msg"], "give it a value of that kind")
    models: dict[str, type[BaseModel]] = {"tool": Entry, "servers": ServerPart}
    model = models.get(place[0], File) if len(place) > 1 else File
    return ConfigError(
        f"{path}: {where}", "is not a known key", _near(place[-1], model.model_fields)
    )


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 3, 0.5) or names
    return f"did you mean {' or '.join(near)}?" if near else "remove it"


def _review(at: str, entry: Entry, servers: dict[str, ServerPart], folder: Path) -> Review:
    try:
        key = ToolKey.checked(entry.server, entry.name)
    except ValueError as error:
        raise ConfigError(at, str(error), "write the server id and the tool's own name") from None
    for impact in entry.impact:
        if impact not in list(Impact):
            raise ConfigError(at, f"unknown impact {impact!r}", _near(impact, list(Impact)))
    for name, form in entry.formats.items():
        if form not in FORMS:
            raise ConfigError(at, f"unknown format {form!r} of {name}", _near(form, FORMS))
    for label in entry.produces:
        _check_label(at, label)
    server = servers.get(entry.server, ServerPart())
    return Review(
        key=key,
        impact=frozenset(map(Impact, entry.impact)),
        pin=entry.pin,
        target=tuple(entry.target),
        amount=entry.amount,
        recordable=tuple(entry.recordable),
        produces=frozenset(entry.produces),
        sources=frozenset(entry.sources),
        formats=MappingProxyType(dict(entry.formats)),
        inputs=tuple(entry.inputs),
        credentials=tuple(entry.credentials),
        isolation=entry.isolation,
        roots=tuple(os.path.abspath(folder / root) for root in entry.roots),
        tenant=server.tenant,
        blocked=entry.blocked,
        reviewer=entry.reviewer,
        reviewed_at=entry.reviewed_at,
        reviewed_in=entry.reviewed_in,
    )


def _check_label(at: str, label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            at, f"label {label!r} is not lower-case letters, digits and dashes", "rename it"
        )
    near = difflib.get_close_matches(label, LABELS, 1, 0.85)
    if near and near[0] != label:
        raise ConfigError(
            at,
            f"label {label!r} is almost {near[0]!r}, which the guardrails look for",
            f"write {near[0]!r}, or choose a label that is not so near",
        )


# -- the lock -------------------------------------------------------------------------------------


def read_lock(path: Path) -> dict[ToolKey, Tool]:
    """Reads `catalog.lock`.

    Raises:
        ConfigError: It was edited or damaged.
    """
    try:
        raw = json.loads(text_of(path), object_pairs_hook=_once, parse_constant=_refuse)
        if not isinstance(raw, dict) or not isinstance(raw.get("tools"), dict):
            raise ValueError("it is no object with tools")
        if raw.pop("v") != 1 or set(raw) != {"tools"}:
            raise ValueError("it was written by another version")
        tools = {name: Tool.from_definition(each) for name, each in raw["tools"].items()}
        for name, tool in tools.items():
            if name != str(tool.key):
                raise ValueError(f"{name} holds the definition of {tool.key}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            str(path), f"is damaged or was edited: {error}", "restore it, or lictor catalog lock"
        ) from None
    return {tool.key: tool for tool in tools.values()}


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name appears twice")
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# -- the entry against its definition -------------------------------------------------------------


def matched(at: str, review: Review, tool: Tool | None) -> Known:
    """A classified entry together with the definition it was made for.

    Raises:
        ConfigError: They do not belong together.
    """
    mend = (
        f"lictor catalog lock {quote(str(review.key))}, or impact = [] until it is reviewed again"
    )
    if not review.pin:
        raise ConfigError(at, "is classified but not pinned", mend)
    if tool is None:
        raise ConfigError(at, "has no definition in catalog.lock", mend)
    if tool.pin != review.pin:
        raise ConfigError(
            at,
            "its pin is not that of the definition in catalog.lock (one of them was edited)",
            mend,
        )
    _check_hints(at, review, tool)
    _check_arguments(at, review, tool)
    return Known(review, tool)


def _check_hints(at: str, review: Review, tool: Tool) -> None:
    if below_hint(tool, review.impact):
        raise ConfigError(
            at,
            "is entered as read, but its server says that it is destructive; a hint may raise an "
            "impact, never lower it",
            'write impact = "write" or "delete", or what else it does',
        )


def _check_arguments(at: str, review: Review, tool: Tool) -> None:
    try:
        declared = compile(tool.input_schema).arguments
    except SchemaRefused as error:
        raise ConfigError(
            at,
            f"its arguments cannot be checked: {error}",
            "leave impact = [] (it is denied), or have its server mend the schema",
        ) from None
    for path in review.inputs:
        if _first(path) not in tool.injected or path in declared:
            raise ConfigError(
                at, f"inputs names {path!r}, which no host supplies", _near(path, tool.injected)
            )
    known = declared | set(review.inputs)
    amount = (review.amount,) if review.amount else ()
    for word, names in (
        ("target", review.target),
        ("amount", amount),
        ("recordable", review.recordable),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(
                    at,
                    f"{word} names argument {name!r}, which the tool has not",
                    _near(name, known),
                )
    for path in review.formats:
        if path not in known and _first(path) not in declared:
            raise ConfigError(
                at, f"formats names argument {path!r}, which the tool has not", _near(path, known)
            )


def _first(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]
