"""Real servers behind the stdio gateway: what is allowed is byte for byte the same, the rest stops.

Every case talks to the server twice, directly and through the gateway, and compares lines.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway_stdio import __file__ as GATEWAY
from home import READ, Limits, home, met, methods, review
from parts import HERE, Parts, environment
from talk import NEW, OLD, Talk, code_of

from lictor.model import Impact, Tool

Call = tuple[str, Mapping[str, Any]]
Check = tuple[str, bool]
SECRET = "s3cret-that-nobody-may-read"
ENV = environment(INTEROP_SECRET=SECRET)


@dataclass(frozen=True)
class Case:
    """One server and what is tried on it.

    Attributes:
        name: Its id in the catalog.
        command: Starts it.
        allowed: Calls whose answers must be the server's own bytes.
        denied: Calls that must be refused, each with its reason.
        harmless: Says whether a refused call has left no trace.
        read: Tools that the reviewer enters as reading only; of the rest, what is proposed.
        targets: Tool → the arguments that say where its effect goes.
        blocked: Tools that he blocks.
        grant: Tools of the task; all if left out.
        limits: Of the task.
        eras: Protocols that it speaks.
    """

    name: str
    command: list[str]
    allowed: tuple[Call, ...]
    denied: tuple[tuple[str, Mapping[str, Any], str], ...]
    harmless: Callable[[Talk], bool]
    read: frozenset[str] = frozenset()
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    grant: frozenset[str] | None = None
    limits: Limits = field(default_factory=dict)
    eras: tuple[str, ...] = (OLD,)


def cases(parts: Parts, folder: Path) -> Iterator[Callable[[], Case]]:
    """All of them; a part that is missing is found out when its case is made."""
    yield lambda: _everything(parts)
    yield lambda: _filesystem(parts, folder / "files")
    yield lambda: _memory(parts)
    yield lambda: _git(parts, folder / "repository")


def _everything(parts: Parts) -> Case:
    return Case(
        "everything",
        parts.npm("server-everything", "stdio"),
        allowed=(("echo", {"message": "ab ü \U0001f600"}), ("get-sum", {"a": 2, "b": 0.5})),
        denied=(
            ("get-env", {}, "tool_blocked"),
            ("nonsense", {}, "tool_unknown"),
            ("get-sum", {"a": "2", "b": 1}, "input_invalid"),
        ),
        harmless=lambda talk: True,
        read=frozenset({"echo", "get-sum"}),
        blocked=frozenset({"get-env"}),
    )


def _filesystem(parts: Parts, root: Path) -> Case:
    (root / "private").mkdir(parents=True, exist_ok=True)
    (root / "public").mkdir(exist_ok=True)
    (root / "public/notes.txt").write_text("one\ntwo ü\n", encoding="utf-8")
    (root / "private/key.txt").write_text(SECRET, encoding="utf-8")
    public, outside = root / "public", root / "private/new.txt"
    under = {"path": {"path_under": str(public)}}
    return Case(
        "files",
        parts.npm("server-filesystem", str(root)),
        allowed=(
            ("write_file", {"path": str(public / "made.txt"), "content": "made"}),
            ("read_text_file", {"path": str(public / "notes.txt")}),
            ("list_directory", {"path": str(public)}),
        ),
        denied=(
            ("read_text_file", {"path": str(root / "private/key.txt")}, "grant_limit"),
            ("read_text_file", {"path": f"{public}/../private/key.txt"}, "grant_limit"),
            ("write_file", {"path": str(outside), "content": "x"}, "grant_limit"),
            ("move_file", {"source": str(public), "destination": str(outside)}, "grant_scope"),
        ),
        harmless=lambda talk: not outside.exists() and public.is_dir(),
        targets={"write_file": ("path",)},
        grant=frozenset({"read_text_file", "list_directory", "write_file"}),
        limits={
            "files/read_text_file": under,
            "files/list_directory": under,
            "files/write_file": {**under, "content": {"any": True}},
        },
    )


def _memory(parts: Parts) -> Case:
    kept = {"entities": [{"name": "kept", "entityType": "t", "observations": ["one"]}]}
    command = parts.npm("server-memory")
    with Talk(command, env=ENV, log=os.devnull) as talk:
        talk.call("create_entities", **kept)
    return Case(
        "memory",
        command,
        allowed=(("read_graph", {}), ("search_nodes", {"query": "kept"})),
        denied=(
            ("delete_entities", {"entityNames": ["kept"]}, "grant_scope"),
            ("create_entities", kept, "grant_scope"),
        ),
        harmless=lambda talk: "kept" in str(talk.call("open_nodes", names=["kept"])),
        read=frozenset({"read_graph", "search_nodes", "open_nodes"}),
        grant=frozenset({"read_graph", "search_nodes", "open_nodes"}),
    )


def _git(parts: Parts, repository: Path) -> Case:
    repository.mkdir(parents=True, exist_ok=True)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    staged = repository / "staged.txt"
    staged.write_text("staged\n", encoding="utf-8")
    for command in (
        ("init", "-q", "-b", "main"),
        (*author, "commit", "-q", "--allow-empty", "-m", "first"),
        ("add", "staged.txt"),
    ):
        subprocess.run(("git", *command), cwd=repository, env=ENV, check=True)
    at = {"repo_path": str(repository)}

    def still_staged(talk: Talk) -> bool:
        shown = subprocess.run(
            ("git", "status", "--porcelain"),
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout.startswith("A")

    return Case(
        "git",
        [str(parts.modern.with_name("mcp-server-git")), "--repository", str(repository)],
        allowed=(("git_status", at), ("git_log", at)),
        denied=(
            ("git_reset", at, "grant_scope"),
            ("git_commit", {**at, "message": "x"}, "grant_scope"),
            ("git_status", {"repo_path": "/"}, "grant_limit"),
        ),
        harmless=still_staged,
        read=frozenset({"git_status", "git_log"}),
        grant=frozenset({"git_status", "git_log"}),
        limits={
            "git/git_status": {"repo_path": str(repository)},
            "git/git_log": {"repo_path": str(repository), "max_count": {"any": True}},
        },
        eras=(OLD, NEW),
    )


def gateway(toml: Path, server: str, command: Iterable[str]) -> list[str]:
    """The command of the gateway before a server."""
    return [str(HERE), GATEWAY, str(toml), server, *command]


def prepare(folder: Path, case: Case, era: str) -> Path:
    """Meets the server through a gateway that lets nothing pass, reviews what it says, grants."""
    toml = home(folder)
    with Talk(gateway(toml, case.name, case.command), era, env=ENV, log=_log(folder)) as talk:
        shown = set(talk.tools())
        if shown - {"lictor_pending"}:
            raise AssertionError(f"{case.name}: listed before anybody has reviewed it: {shown}")
    found = {**met(folder), **methods(case.name)}
    blocked = [each for each in found.values() if each.key.name in case.blocked]
    review(folder, blocked, blocked=True)
    open_ = [each for each in found.values() if each not in blocked]
    for tool in open_:
        target = case.targets.get(tool.key.name, ())
        review(folder, (tool,), lambda tool: _impact(case, tool), target=target)
    granted = [each.key.name for each in open_] if case.grant is None else case.grant
    names = {f"{case.name}/{each}" for each in granted}
    return home(folder, names, limits=case.limits)


def _impact(case: Case, tool: Tool) -> frozenset[Impact]:
    from lictor.catalog import propose

    ours = tool.key.name in case.read or tool.key.name.startswith("mcp:")
    return READ if ours else propose(tool).impact


def check(case: Case, folder: Path) -> dict[str, list[Check]]:
    """Tries a case in each era; what is true of it."""
    return {era: list(_era(case, folder / era, era)) for era in case.eras}


def _era(case: Case, folder: Path, era: str) -> Iterator[Check]:
    toml = prepare(folder, case, era)
    log = _log(folder)
    with Talk(case.command, era, env=ENV, log=log) as talk:
        direct = talk.tools()
        expected = [talk.raw("tools/call", _params(each)) for each in case.allowed]
    with Talk(gateway(toml, case.name, case.command), era, env=ENV, log=log) as talk:
        listed = talk.tools()
        got = [talk.raw("tools/call", _params(each)) for each in case.allowed]
        refused = [(n, a, code, talk.call(n, **a)) for n, a, code in case.denied]
        harmless = case.harmless(talk)
    yield f"lists {len(listed)} of {len(direct)}", bool(listed)
    yield "definitions same", all(direct.get(name) == each for name, each in listed.items())
    for (name, _), ours, theirs in zip(case.allowed, got, expected, strict=True):
        same = ours[ours.index(b'"result"') :] == theirs[theirs.index(b'"result"') :]
        yield f"{name} byte-equal", ours == theirs or (same and len(ours) == len(theirs))
        yield f"{name} no error", b'"isError":true' not in theirs
    for name, _, code, result in refused:
        yield f"{name} {code} (got {code_of(result)})", code_of(result) == code
        yield f"{name} tells nothing", SECRET not in str(result) and SECRET not in str(talk.told)
    yield "no trace of what was denied", harmless


def _params(call: Call) -> dict[str, Any]:
    return {"name": call[0], "arguments": dict(call[1])}


def _log(folder: Path) -> str:
    return str(folder / "stderr.txt")
