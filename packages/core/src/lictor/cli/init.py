"""`lictor init`: from what `Gate.dev()` has seen to a `lictor.toml`.

Rules enforced here:

1. Nothing is overwritten; the file is written whole, and only if it loads.
2. What it permits is never wider than the first day was: tools that ran, and what has an effect is
   still confirmed. A rule proposes limits; it lifts nothing.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from lictor import audit
from lictor.assemble import Project, project_of
from lictor.canonical import Json
from lictor.catalog.locking import quoted
from lictor.cli.hint import refuse_under_gate
from lictor.cli.shared import DEFAULT, ProjectFile, absolute, console, plain, plain_lines
from lictor.dev import account
from lictor.errors import ConfigError
from lictor.model import Review, Verdict
from lictor.place import NAME, Place
from lictor.protect import refuse_unsafe
from lictor.settings import Settings

LINE: Final = f'gate = Gate.from_file(Path(__file__).with_name("{NAME}"))'
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_MAX_TARGETS: Final = 5
_CENT: Final = Decimal("0.01")


@dataclass(slots=True)
class Seen:
    """What the records of the first day hold.

    Attributes:
        agent: Who acted last.
        user: For whom.
        agents: Agent → the user it acted for.
        tools: Tools that were allowed.
        confirmed: Effects that a person has agreed to, with the arguments as recorded.
    """

    agent: str = ""
    user: str = ""
    agents: dict[str, str] = field(default_factory=dict)
    tools: set[str] = field(default_factory=set)
    confirmed: list[tuple[str, Mapping[str, Json]]] = field(default_factory=list)


def init(project: ProjectFile = DEFAULT) -> None:
    """Writes lictor.toml from what Gate.dev() has seen, and says what to change."""
    path = absolute(project)
    path = path / NAME if path.is_dir() else path
    _refuse_taken(path)
    place = Place(path, Settings())
    refuse_under_gate(place.store)
    seen, catalog = _seen(place), place.reviewed()
    reviews = {str(k.review.key): k.review for k in catalog.known_tools() if not k.review.blocked}
    text, made = _draft(path, seen, reviews)
    _write(path, text)
    console.print(f"wrote {plain(path)}:\n{plain_lines(text)}")
    _say_next(seen, made)


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigError(
            str(path),
            "exists, and nothing is overwritten",
            f"edit it, or move it: mv {path}{{,.old}}",
        )
    folder = refuse_unsafe(path.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(str(folder), "cannot be written", "name a folder of yours with -p")


# -- what was seen --------------------------------------------------------------------------------


def _seen(place: Place) -> Seen:
    seen = Seen()
    if not place.store.exists():
        return seen
    for line in audit.records(place.store, audit.Filters(kind="decision")):
        _note(seen, line.body)
    return seen


def _note(seen: Seen, body: Mapping[str, Json]) -> None:
    chain = body.get("chain")
    if not isinstance(chain, list) or body.get("depth") != 1 or body.get("autonomous") is True:
        return
    names = {part[0]: part[2].partition("/")[2] for part in (str(c).partition(":") for c in chain)}
    seen.agent, seen.user = names["agent"], names["user"]
    seen.agents[seen.agent] = seen.user
    if body["verdict"] != Verdict.ALLOW.value:
        return
    tool, arguments = str(body["tool"]), body.get("arguments")
    seen.tools.add(tool)
    if body.get("met") and isinstance(arguments, dict):
        seen.confirmed.append((tool, arguments))


# -- the file -------------------------------------------------------------------------------------


def _draft(path: Path, seen: Seen, reviews: Mapping[str, Review]) -> tuple[str, Project]:
    """The text, and what it loads as."""
    head, rule = _head(seen, reviews), _rule(seen, reviews)
    if rule:
        try:
            return head + rule, _loaded(path, head + rule)
        except ConfigError:  # a value that was seen cannot stand in a rule; the rest can
            return head, _loaded(path, head)
    return head, _loaded(path, head)


def _head(seen: Seen, reviews: Mapping[str, Review]) -> str:
    agent, user = seen.agent or "app", seen.user or account()
    agents = seen.agents or {agent: user}
    tools = sorted(tool for tool in seen.tools if tool in reviews)
    lines = [
        "# Written by lictor init from what Gate.dev() has seen; yours to edit.",
        'profile = "local"',
        'guardrails = "starter@1"',
        f"process = {{ task = {quoted(agent)}, agent = {quoted(agent)}, user = {quoted(user)} }}",
    ]
    for name, owner in sorted(agents.items()):
        lines += [f"[agents.{_key(name)}]", f"owner = {quoted(owner)}"]
    lines += [f"[users.{_key(name)}]" for name in sorted({user, *agents.values()})]
    lines += [
        f"[tasks.{_key(agent)}]",
        f"tools = [{', '.join(map(quoted, tools))}]",
        "expires_in = 86400",
    ]
    return "\n".join(lines) + "\n"


def _rule(seen: Seen, reviews: Mapping[str, Review]) -> str:
    """A rule for the effect that was confirmed most often, with limits from what was seen."""
    counts = Counter(tool for tool, _ in seen.confirmed if tool in reviews)
    for tool, _ in counts.most_common():
        calls = [arguments for name, arguments in seen.confirmed if name == tool]
        allowed = _limits(reviews[tool], calls)
        if allowed:
            limits = ", ".join(f"{_key(name)} = {{ {text} }}" for name, text in allowed.items())
            return (
                f"[[rule]]\ntool = {quoted(tool)}\nallow = {{ {limits} }}\n"
                'otherwise = "confirm:user"\n'
            )
    return ""


def _limits(review: Review, calls: Iterable[Mapping[str, Json]]) -> dict[str, str]:
    seen = list(calls)
    found: dict[str, str] = {}
    for name in review.target:
        values = list(dict.fromkeys(v for each in seen if isinstance(v := each.get(name), str)))
        if values and len(values) <= _MAX_TARGETS:
            found[name] = f"one_of = [{', '.join(map(quoted, values))}]"
    amounts = [Decimal(str(v)) for each in seen if _is_number(v := each.get(review.amount))]
    if amounts and len(amounts) == len(seen) and min(amounts) > 0:
        low = min(_CENT, *amounts)
        found[review.amount] = f'min = "{low:f}", max = "{max(amounts):f}"'
    return found


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else quoted(name)


def _loaded(path: Path, text: str) -> Project:
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except (ValueError, ValidationError) as error:
        raise ConfigError(str(path), f"would not load: {error}", "write it by hand") from None
    return project_of(path, settings)


def _write(path: Path, text: str) -> None:
    """Writes the file whole or not at all, and never over another."""
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        spare.chmod(0o644)
        os.link(spare, path)
    except FileExistsError:
        _refuse_taken(path)
    finally:
        spare.unlink()


# -- what is said ---------------------------------------------------------------------------------


def _say_next(seen: Seen, made: Project) -> None:
    known = {str(each.review.key) for each in made.catalog.known_tools()}
    gone = ", ".join(sorted(seen.tools - known))
    if gone:
        console.print(f"left out, since it is no longer reviewed: {plain(gone)}")
    if not seen.tools:
        console.print(
            "No call has been allowed here yet, so the task may only read.\n"
            "Run your program with Gate.dev() first, or write its tools into the task."
        )
    if made.settings.rule and made.settings.process is not None:
        tool = str(made.settings.rule[0]["tool"])
        limits = f"[tasks.{_key(made.settings.process.task)}.limits.{_key(tool)}]"
        console.print(
            f"The rule holds what you have confirmed of {plain(tool)}. "
            "It is still asked for each time; what is outside the rule says so.\n"
            f"To let calls within limits run unasked, write the limits under {plain(limits)}"
        )
    console.print(f"Change one line in your program:\n  {plain(LINE)}")
    console.print("What it then asks is answered in a second terminal: lictor watch")
