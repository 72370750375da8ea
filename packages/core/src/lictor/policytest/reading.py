"""YAML that means what it looks like, with the line of every value.

Rules enforced here:

1. A value that YAML takes for something else than most people do (`yes`, `012`, a date) is refused,
   with the advice to quote it.
2. A key that stands twice, an anchor, a tag of another language, a second document: refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml

from lictor.canonical import Json
from lictor.errors import ConfigError

MAX_BYTES: Final = 1_000_000
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][+-][0-9]+)?")
_NUMBER_LIKE: Final = re.compile(r"[-+.]?[0-9][0-9._xXoObB:eE+-]*")
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Marked:
    """A value and the line on which it, or its key, stands."""

    line: int
    value: Value

    def plain(self) -> Json:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {name: each.plain() for name, each in self.value.items()}
        if isinstance(self.value, list):
            return [each.plain() for each in self.value]
        return self.value


Value: TypeAlias = str | int | float | bool | list[Marked] | dict[str, Marked] | None


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds, and how far its top list is indented."""

    root: Marked
    indent: int
    block: bool


def parse(text: str, name: str) -> Document | None:
    """Reads a YAML document; `None` for an empty one.

    Args:
        text: The document.
        name: Of the file, for errors.

    Raises:
        ConfigError: It is not YAML, or means something else than it looks like.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(name, "is longer than a megabyte", "split it, or shorten the arguments")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if getattr(event, "anchor", None):
                mark = event.start_mark
                at = name if mark is None else f"{name}:{mark.line + 1}"
                raise ConfigError(at, "anchors are not read", "write the value out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        block = isinstance(root, yaml.SequenceNode) and not root.flow_style
        return Document(_Reader(name).value(root, 1), root.start_mark.column, block)
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from None
    except RecursionError:
        raise ConfigError(name, "is nested too deeply", "write it flatter") from None


def _not_yaml(error: yaml.YAMLError, name: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return ConfigError(where, f"is not YAML: {problem}", "mend this line, or quote its text")


@dataclass(frozen=True, slots=True)
class _Reader:
    name: str

    def value(self, node: yaml.Node, line: int) -> Marked:
        if isinstance(node, yaml.MappingNode):
            self._tagged(node, "map", line)
            return Marked(line, self._mapping(node))
        if isinstance(node, yaml.SequenceNode):
            self._tagged(node, "seq", line)
            items: list[yaml.Node] = node.value
            return Marked(line, [self.value(item, item.start_mark.line + 1) for item in items])
        return Marked(line, self._scalar(node, line))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Marked]:
        found: dict[str, Marked] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = self._scalar(key, line) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                raise self._error(line, "a key is no text", "quote it")
            if name in found:
                raise self._error(line, f"{name!r} stands twice", "keep one of them")
            found[name] = self.value(value, line)
        return found

    def _scalar(self, node: yaml.Node, line: int) -> str | int | float | bool | None:
        text = str(node.value)
        if node.style is not None:  # type: ignore[attr-defined]
            self._tagged(node, "str", line)
            return text
        kind = str(node.tag).removeprefix(_TAG)
        if kind == "str" and not _NUMBER_LIKE.fullmatch(text):
            return text
        if kind == "null":
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _INTEGER.fullmatch(text):
            return int(text)
        if kind == "float" and _NUMBER.fullmatch(text):
            return float(text)
        meant = {"timestamp": "a date", "bool": "true or false", "str": "a number"}
        raise self._error(
            line,
            f"{text!r} is read as {meant.get(kind, kind)} by some and as text by others",
            f"quote it if it is text: '{text}'; else write true, false, or a plain number",
        )

    def _tagged(self, node: yaml.Node, kind: str, line: int) -> None:
        if node.tag != f"{_TAG}{kind}":
            raise self._error(line, f"has the tag {node.tag}", "leave the tag out")

    def _error(self, line: int, problem: str, mend: str) -> ConfigError:
        return ConfigError(f"{self.name}:{line}", problem, mend)
