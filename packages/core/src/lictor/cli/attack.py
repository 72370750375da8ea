"""`lictor attack module:agent`: every applicable bypass on the user's own agent."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lictor.assemble import Stage, staged
from lictor.attack.lab import Lab, Recorder, Target, only
from lictor.attack.run import run, told
from lictor.cli.shared import console, plain
from lictor.errors import ConfigError

ADAPTERS: Final = ("lictor_langchain", "lictor_llamaindex")


def attack(
    agent: Annotated[str, typer.Argument(help="module:name of the agent, or of what makes it.")],
    task: Annotated[str | None, typer.Option(help="The [tasks.x] that it runs under.")] = None,
    name: Annotated[str | None, typer.Option("--agent", help="The [agents.x] that acts.")] = None,
    user: Annotated[str | None, typer.Option(help="The [users.x] that it acts for.")] = None,
) -> None:
    """Tries ways around the gate on your own agent; nothing of yours runs or is written.

    Imports your program, so what it does on import happens. Exit code 1 if something went through.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            with staged(stage):
                target = _target(_load(agent), agent)
            findings = list(run(_lab(stage, target, agent, task, name, user)))
        finally:
            stage.close()
    told(findings, lambda line: console.print(plain(line)))
    if any(each.state == "went through" for each in findings):
        raise typer.Exit(1)


def _lab(
    stage: Stage, target: Target, agent: str, task: str | None, name: str | None, user: str | None
) -> Lab:
    if stage.project is None or not stage.gates:
        raise ConfigError(
            agent, "makes no gate", "create it with Gate.from_file() where it is imported"
        )
    gate = stage.gates[-1]
    if any(each is not gate for each in target.gates):
        raise ConfigError(agent, "has tools of several gates", "give all its tools one gate")
    if not target.tools and not target.unguarded:
        raise ConfigError(agent, "has no tools", "attack an agent that has some")
    settings = stage.project.settings
    process = settings.process
    return Lab(
        stage.project,
        target,
        gate,
        only(settings.agents, "agent", name or (process and process.agent) or None),
        only(settings.users, "user", user or (process and process.user) or None),
        _task(settings.tasks, task or (process and process.task) or None),
        Recorder(),
    )


def _task(templates: Any, given: str | None) -> str | None:
    return only(templates, "task", given) if templates or given else None


def _load(name: str) -> Any:
    module, _, path = name.partition(":")
    if not module or not path:
        raise ConfigError(name, "names no agent", "write module:name, as in my_app:agent")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(name, str(error), "run this where the module can be imported") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(name, f"{module} has no {part}", "mend the name")
        found = getattr(found, part)
    return found


def _meant(found: Any) -> Iterator[Any]:
    """The object itself, then what it makes, which is made once: each has a gate of its own."""
    yield found
    if callable(found):
        yield found()


def _target(found: Any, name: str) -> Target:
    modules, missing = [], []
    for adapter in ADAPTERS:
        try:
            modules.append(importlib.import_module(f"{adapter}.attack"))
        except ModuleNotFoundError:
            missing.append(adapter.replace("_", "-"))
    for agent in _meant(found):
        for module in modules:
            target: Target | None = module.target(agent)
            if target is not None:
                return target
    raise ConfigError(
        name,
        "is no agent of a host that an adapter here knows",
        f"pip install {' or '.join(missing)}" if missing else "name the agent itself",
    )
