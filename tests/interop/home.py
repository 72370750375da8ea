"""What an operator writes for a server: met first, then reviewed, then granted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lictor.catalog import Decided, classify, propose, read_seen
from lictor.errors import ConfigError
from lictor.model import Impact, Tool
from lictor_mcp import methods as m

USER, AGENT, TASK = "alice", "tester", "interop"
ALL = "permit (principal, action, resource);\n"
NONE = "forbid (principal, action, resource);\n"
POLICIES = ("allow-all", "strict")
READ = frozenset({Impact.READ})
Limits = Mapping[str, Mapping[str, object]]


def home(
    folder: Path,
    tools: Iterable[str] = (),
    *,
    limits: Limits | None = None,
    policy: str = "strict",
) -> Path:
    """Writes `lictor.toml` with one task, which every call runs under; returns its path.

    Args:
        folder: Where.
        tools: What the task may call.
        limits: Of the task.
        policy: `strict` is the starter set; `allow-all` and `deny-all` are one line each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f'guardrails = "{"starter@1" if policy == "strict" else ""}"',
        f'process = {{ task = "{TASK}", agent = "{AGENT}", user = "{USER}" }}',
        f'[agents.{AGENT}]\nowner = "{USER}"',
        f"[users.{USER}]",
        f"[tasks.{TASK}]\nexpires_in = 86400\ntools = {json.dumps(sorted(tools))}",
    ]
    for tool, named in (limits or {}).items():
        lines.append(f"[tasks.{TASK}.limits.{json.dumps(tool)}]")
        lines += [f"{json.dumps(name)} = {_toml(limit)}" for name, limit in named.items()]
    path = folder / "lictor.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    catalog = folder / "catalog.toml"
    if not catalog.exists():
        catalog.write_text("", encoding="utf-8")
    if policy != "strict":
        text = ALL if policy == "allow-all" else NONE
        (folder / "policies").mkdir(exist_ok=True)
        (folder / "policies/all.cedar").write_text(text, encoding="utf-8")
    return path


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(each)}" for k, each in value.items()) + " }"
    return json.dumps(value)


def met(folder: Path) -> dict[str, Tool]:
    """What the gate has seen there so far."""
    return {str(key): tool for key, tool in read_seen(folder / ".lictor/seen.json").items()}


def methods(server: str) -> dict[str, Tool]:
    """Everything that is decided by its method and not by a name."""
    each_way = (*m.PARAMS, *m.BACK, *m.FROM_SERVER)
    named = [each for each in each_way if each not in ("tools/call", "prompts/get")]
    return {f"{server}/mcp:{each}": m.method_tool(server, each) for each in named}


def review(
    folder: Path,
    tools: Iterable[Tool],
    impact: Callable[[Tool], frozenset[Impact]] | None = None,
    **more: Any,
) -> list[str]:
    """Enters tools in the catalog, each as what `lictor review` would propose, or as told.

    Returns:
        Tools that nobody can review: their schema cannot be checked.
    """
    left = []
    for tool in tools:
        decided = Decided(
            impact=impact(tool) if impact is not None else propose(tool).impact,
            reviewer=USER,
            reviewed_at="2026-11-24T00:00:00Z",
            **more,
        )
        try:
            classify(folder / "catalog.toml", folder / "catalog.lock", tool, decided)
        except ConfigError as error:
            if "schema" not in str(error):
                raise
            left.append(str(tool.key))
    return left


def entered(
    learnt: Path,
    folder: Path,
    server: str,
    policy: str,
    alter: Callable[[Tool], Tool] = lambda tool: tool,
) -> list[str]:
    """Reviews everything that was met elsewhere, and grants it.

    The reviewer of the strict policy has seen that the suite's tools only give an answer; with the
    others what is proposed is accepted.

    Returns:
        Tools that nobody can review.
    """
    found = {**met(learnt), **methods(server)}
    home(folder)
    impact = (lambda _: READ) if policy == "strict" else None
    left = review(folder, map(alter, found.values()), impact)
    home(folder, found.keys() - set(left), policy=policy)
    return left


def changed(name: str) -> Callable[[Tool], Tool]:
    """Makes the definition of one tool another one."""

    def alter(tool: Tool) -> Tool:
        other = replace(tool, description=f"{tool.description} (as it was)")
        return other if tool.key.name == name else tool

    return alter
