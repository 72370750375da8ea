"""The tools of a program as definitions, for a comparison with the catalog.

Rules enforced here:

1. Importing a program runs it, so it happens only where somebody has named the module.
2. What is no tool, or of a host without an adapter, is an error; nothing is left out silently.
3. The tools of an MCP server are what it lists; they are read from it, not from a program.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lictor.catalog import Catalog, Drift, drift
from lictor.errors import ConfigError
from lictor.forms import visible
from lictor.model import Tool

LOCAL: Final = "local"
_ADAPTERS: Final[Mapping[str, str]] = {
    "langchain_core": "lictor_langchain",
    "llama_index": "lictor_llamaindex",
}
"""The package that a tool's class comes from, and the one that reads it."""
_SERVED: Final = frozenset({"fastmcp", "mcp", "mcp_types"})
"""Packages of MCP: a program holds no definition there that a server could not list otherwise."""


def gathered(where: str, folder: Path) -> list[Tool]:
    """Imports a program's tools.

    Args:
        where: `module:NAME`; a list of tools, a dict (server → list, or name → tool), or a
            function without arguments that gives one.
        folder: What the module is found in, besides what is installed.

    Raises:
        ConfigError: There is no such thing, it cannot be imported, or it is not tools.
    """
    module, colon, name = where.partition(":")
    if not colon or not module or not name:
        raise ConfigError(f"--tools {where}", "is not module:NAME", "--tools app:TOOLS")
    return definitions(_found(where, module, name, folder), where)


def definitions(tools: object, where: str = "tools") -> list[Tool]:
    """Tools of any host as definitions.

    Args:
        tools: As for `gathered`, without the function.
        where: What to call them in errors.

    Raises:
        ConfigError: Something among them is not a tool.
    """
    return [_definition(server, each, where) for server, each in _listed(tools, where)]


def drifted(catalog: Catalog, tools: Iterable[Tool]) -> Drift:
    """Compares; what was locked while it was the main program may be imported by its name now."""
    return drift(catalog, [_as_main(catalog, tool) for tool in tools])


def _found(where: str, module: str, name: str, folder: Path) -> object:
    place = str(folder)
    sys.path.insert(0, place)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found() if callable(found) and not _host(found) else found
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--tools {where}", f"there is no module {error.name!r}", f"name one found in {place}"
        ) from None
    except AttributeError as error:
        raise ConfigError(f"--tools {where}", str(error), "name what holds the tools") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"--tools {where}",
            f"ended with {type(error).__name__}: {error}",
            'keep what runs the program below if __name__ == "__main__"',
        ) from error
    finally:
        sys.path.remove(place)


def _listed(tools: object, where: str) -> Iterator[tuple[str, object]]:
    _refuse_served(tools, where)
    if isinstance(tools, Mapping):
        for name, each in tools.items():
            if isinstance(each, list | tuple):
                yield from ((str(name), one) for one in each)
            else:
                yield LOCAL, each
    elif isinstance(tools, list | tuple | set | frozenset):
        yield from ((LOCAL, each) for each in tools)
    else:
        raise ConfigError(
            where, f"is {type(tools).__name__}, no tools", "a list of tools, or server → list"
        )


def _host(each: object) -> str:
    """The adapter for a tool, by where its class comes from."""
    for kind in type(each).__mro__:
        adapter = _ADAPTERS.get(kind.__module__.partition(".")[0])
        if adapter is not None:
            return adapter
    return ""


def _refuse_served(each: object, where: str) -> None:
    packages = {kind.__module__.partition(".")[0] for kind in type(each).__mro__}
    if packages & _SERVED:
        raise ConfigError(
            where,
            f"{type(each).__module__}.{type(each).__qualname__} belongs to an MCP server, "
            "whose tools are what it lists",
            "lictor catalog lock --server NAME reads those of a server in [mcp.servers]",
        )


def _definition(server: str, each: object, where: str) -> Tool:
    if isinstance(each, Tool):
        return each
    _refuse_served(each, where)
    adapter = _host(each) or ("lictor_langchain" if callable(each) else "")
    if not adapter:
        raise ConfigError(
            where, f"{visible(repr(each)[:60])} is no tool", "name the list that the agent is given"
        )
    try:
        read = importlib.import_module(adapter).definition
    except (ModuleNotFoundError, AttributeError):
        raise ConfigError(
            where,
            f"nothing here reads {type(each).__module__}.{type(each).__qualname__}",
            f'pip install "lictor[{adapter.partition("_")[2]}]"',
        ) from None
    try:
        tool: Tool = read(each, server=server)
    except Exception as error:
        raise ConfigError(
            where, f"{visible(repr(each)[:60])}: {error}", "name tools that can be guarded"
        ) from error
    return tool


def _as_main(catalog: Catalog, tool: Tool) -> Tool:
    locked = catalog.locked.get(tool.key)
    if locked is None or not locked.origin.startswith("__main__:"):
        return tool
    origin = re.sub(r"(?<!\S)[^\s:]+:", "__main__:", tool.origin)
    return Tool.from_definition({**tool.definition(), "origin": origin})
