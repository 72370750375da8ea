"""`lictor gateway install`: puts the gateway before servers in the configuration of a client.

Rules enforced here:

1. What is written is shown before, as a difference that holds only what changes.
2. A file that cannot be written back as it was meant (comments, names twice) is refused and left as
   it is. A copy is kept; the file is replaced whole, and only if nobody has changed it meanwhile.
3. Commands are written with absolute paths: a client starts them from anywhere.
4. What was put in can be taken out again, one server at a time.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lictor.errors import ConfigError
from lictor_mcp.gateway.opening import named

MAC: Final = sys.platform == "darwin"
_APPS: Final = "Library/Application Support" if MAC else ".config"
CLIENTS: Final = {
    "claude-desktop": f"{_APPS}/Claude/claude_desktop_config.json",
    "cursor": ".cursor/mcp.json",
    "vscode": f"{_APPS}/Code/User/mcp.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
}
"""Client → where its configuration is, from the account's home."""
SECTIONS: Final = ("mcpServers", "servers")


@dataclass(frozen=True, slots=True)
class Entry:
    """A server whose entry changes.

    Attributes:
        name: What the client calls it.
        id: Its id in the catalog.
        command: What starts the server itself.
        env: Environment that the client sets for it.
    """

    name: str
    id: str
    command: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration, and what is to become of it.

    Attributes:
        path: The file.
        before: Its text.
        after: Its text then.
        entries: The servers that change.
        left: Why others do not.
    """

    path: Path
    before: str
    after: str
    entries: tuple[Entry, ...]
    left: tuple[str, ...]

    @property
    def difference(self) -> str:
        """What changes; nothing around it, which may hold secrets."""
        lines = difflib.unified_diff(
            self.before.splitlines(),
            self.after.splitlines(),
            str(self.path),
            f"{self.path} (new)",
            lineterm="",
            n=0,
        )
        return "\n".join(lines)

    def write(self) -> Path:
        """Writes it.

        Returns:
            The copy of what was there.

        Raises:
            ConfigError: Somebody has changed the file meanwhile, or it cannot be written.
        """
        copy = self.path.with_name(f"{self.path.name}.{time.strftime('%Y%m%d-%H%M%S')}.lictor-bak")
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            shutil.copy2(self.path, copy)
            fresh.write_text(self.after, encoding="utf-8")
            shutil.copymode(self.path, fresh)
            if _text(self.path) != self.before:
                raise ConfigError(str(self.path), "was changed meanwhile", "run the command again")
            fresh.replace(self.path)
        except OSError as error:
            raise ConfigError(
                str(self.path), f"cannot be written: {error}", "check the file and its folder"
            ) from None
        finally:
            fresh.unlink(missing_ok=True)
        return copy


def config_of(client: str) -> Path:
    """Where a client has its configuration.

    Args:
        client: A name of `CLIENTS`, or the path of a file like `.mcp.json`.

    Raises:
        ConfigError: It is neither, or the file is not there.
    """
    if "/" in client or client.endswith(".json"):
        path = Path(client).absolute()
    elif client in CLIENTS:
        path = Path.home() / CLIENTS[client]
    else:
        known = ", ".join(sorted(CLIENTS))
        raise ConfigError(client, "is no client that is known", f"{known}, or a path: ./.mcp.json")
    if not path.is_file():
        raise ConfigError(str(path), "does not exist", "add the server in the client once, or name")
    return path.resolve()


def plan(
    path: Path, servers: Sequence[str], *, every: bool = False, project: Path | None = None
) -> Plan:
    """What putting the gateway before servers changes.

    Args:
        path: The client's configuration.
        servers: Which of its servers.
        every: All of them.
        project: Absolute path of the `lictor.toml` that decides; a folder for each if left out.

    Raises:
        ConfigError: The file cannot be read or has no such server; says how to mend it.
    """
    before, document, section = _read(path)
    entries, left = [], []
    for name in _wanted(path, section, servers, every=every):
        found = section[name]
        problem = _unfit(found)
        command = () if problem else _command(found)
        if problem or not command:
            left.append(f"{name}: {problem or 'its command is not found here'}")
            continue
        env = {str(key): str(value) for key, value in (found.get("env") or {}).items()}
        entry = Entry(name, named(name), command, env)
        section[name] = {**found, **_wrapped(entry, project)}
        entries.append(entry)
    taken = {each.id for each in entries}
    if len(taken) != len(entries):
        raise ConfigError(str(path), "two of its servers would have one id", "rename one of them")
    return Plan(path, before, _dumped(before, document), tuple(entries), tuple(left))


def undo(path: Path, servers: Sequence[str], *, every: bool = False) -> Plan:
    """What taking the gateway out again changes; see `plan`."""
    before, document, section = _read(path)
    entries, left = [], []
    for name in _wanted(path, section, servers, every=every):
        found = section[name]
        if not _is_ours(found):
            left.append(f"{name}: the gateway is not before it")
            continue
        command = tuple(found["args"][found["args"].index("--") + 1 :])
        section[name] = {**found, "command": command[0], "args": list(command[1:])}
        entries.append(Entry(name, named(name), command, {}))
    return Plan(path, before, _dumped(before, document), tuple(entries), tuple(left))


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    text = _text(path)
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            str(path),
            f"is not plain JSON, so writing it would lose what is in it: {error}",
            "take comments and trailing commas out, or put lictor gateway -- before the command "
            "by hand",
        ) from None
    for key in SECTIONS:
        section = document.get(key) if isinstance(document, dict) else None
        if isinstance(section, dict) and section:
            return text, document, section
    raise ConfigError(str(path), "names no servers", f"it should have {' or '.join(SECTIONS)}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "check the file") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _wanted(
    path: Path, section: Mapping[str, Any], servers: Sequence[str], *, every: bool
) -> list[str]:
    known = ", ".join(section)
    unknown = [each for each in servers if each not in section]
    if unknown:
        raise ConfigError(str(path), f"has no server {unknown[0]!r}", f"it has: {known}")
    if not servers and not every:
        raise ConfigError(str(path), f"has these servers: {known}", "name some, or --all")
    return list(section) if every else list(dict.fromkeys(servers))


def _unfit(found: object) -> str:
    if not isinstance(found, dict) or not isinstance(found.get("command"), str):
        return "it has no command (an address is served by lictor gateway --listen)"
    if not all(isinstance(each, str) for each in _arguments(found)):
        return "its args are no texts"
    if not isinstance(found.get("env") or {}, dict):
        return "its env is no table"
    return "the gateway is before it already" if _is_ours(found) else ""


def _arguments(found: Mapping[str, Any]) -> list[Any]:
    given = found.get("args") or []
    return given if isinstance(given, list) else [None]


def _is_ours(found: object) -> bool:
    if not isinstance(found, dict) or Path(str(found.get("command"))).name != "lictor":
        return False
    given = _arguments(found)
    return given[:1] == ["gateway"] and "--" in given[:-1]


def _command(found: Mapping[str, Any]) -> tuple[str, ...]:
    env = found.get("env") or {}
    program = shutil.which(found["command"], path=env.get("PATH"))
    return (os.path.abspath(program), *_arguments(found)) if program else ()


def _wrapped(entry: Entry, project: Path | None) -> dict[str, Any]:
    args = ["gateway", "--name", entry.id]
    if project is not None:
        args += ["-p", str(project)]
    for name in entry.env:
        args += ["--env", name]
    return {"command": program(), "args": [*args, "--", *entry.command]}


def program() -> str:
    """Our own command, as an absolute path."""
    beside = Path(sys.executable).with_name("lictor")
    return str(beside) if beside.exists() else os.path.abspath(shutil.which("lictor") or "lictor")


def _dumped(before: str, document: Mapping[str, Any]) -> str:
    """The document in the manner of the text that it was read from."""
    second = before.split("\n", 2)[1] if "\n" in before else ""
    lead = second[: len(second) - len(second.lstrip())]
    text = json.dumps(document, ensure_ascii=before.isascii(), indent=lead or 2)
    return text + ("\n" if before.endswith("\n") else "")
