"""`lictor explain`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lictor import audit
from lictor.assemble import Project, rehearsal
from lictor.canonical import Json
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain
from lictor.errors import PERMIT, REFUSALS, ConfigError
from lictor.model import Decision, Kind, ToolCall, ToolKey
from lictor.policy.explain import explain as explain_policy
from lictor.ports import GrowSession, Known
from lictor.template import key_of

_SESSION = "explain"


@dataclass(frozen=True, slots=True)
class _Case:
    """A call to decide once more, without running or recording it."""

    tool: ToolKey
    arguments: Mapping[str, Json]
    agent: str
    user: str | None
    template: str | None
    labels: Iterable[str] = ()
    tools: tuple[str, ...] | None = None
    autonomous: bool = False


def explain(
    what: Annotated[str, typer.Argument(help="last, a decision or call id, or server/name.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="For server/name: name=value, value as JSON.")
    ] = None,
    project: ProjectFile = DEFAULT,
    agent: Annotated[str | None, typer.Option("--as", help="Who would call.")] = None,
    user: Annotated[str | None, typer.Option("--for", help="For whom.")] = None,
    task: Annotated[str | None, typer.Option(help="Task template.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label of the session.")] = None,
) -> None:
    """Tells why a call was decided as it was, or how a hypothetical one would be."""
    found = open_project(project)
    if "/" not in what:
        _recorded(found, what)
        return
    key = key_of(what)
    known = _known(found, key)
    if agent is None:
        raise ConfigError("explain", "--as is missing", "name an agent of lictor.toml: --as banker")
    given = _arguments(known, arguments or ())
    # A call outside any template is asked for by name: the grant then names just this tool.
    tools = (str(key),) if task is None and known.review.effectful else None
    for each in label or ():
        if each not in found.declared.labels:
            known_labels = ", ".join(sorted(found.declared.labels))
            raise ConfigError("--label", f"no label {each!r} is declared", f"one of {known_labels}")
    _decide(found, _Case(key, given, agent, user, task, label or (), tools, user is None))


def _recorded(project: Project, what: str) -> None:
    if what == "last":
        lines = list(audit.show(project.store, kind="decision", limit=1))
    else:
        lines = [
            line for line in audit.find(project.store, what) if line.body["kind"] == "decision"
        ]
    if not lines:
        raise ConfigError("explain", f"no decision {what!r} is recorded", "lictor audit show")
    for line in lines:
        body = line.body
        code = str(body["code"])
        console.print(
            f"{plain(body['tool'])}: {plain(body['verdict'])} ({code}), "
            f"{plain(body['enforcement'])}; decision {plain(body['id'])}"
        )
        _facts(body)
        if code != PERMIT and code in REFUSALS:
            console.print(f"  what it means: {REFUSALS[code].developer}")
            console.print(f"  mend: {plain(REFUSALS[code].mend)}")
        _policies(project, _texts(body.get("policies")))
        for outcome in audit.show(project.store, kind="outcome", call=str(body["call"])):
            console.print(f"  outcome: {plain(outcome.body['verdict'])}")
        _again(project, body)


def _facts(body: Mapping[str, Json]) -> None:
    if body.get("detail"):
        console.print(f"  detail: {plain(body['detail'])}")
    chain = _texts(body.get("chain"))
    if chain:
        console.print(
            f"  chain: {plain(' -> '.join(chain))} ({plain(body['assurance'])}), "
            f"task {plain(body.get('template') or body['task'])}"
        )
    for name in ("labels", "asks", "met"):
        if _texts(body.get(name)):
            console.print(f"  {name}: {plain(', '.join(_texts(body[name])))}")
    if body.get("arguments"):
        console.print(f"  arguments: {plain(json.dumps(body['arguments'], ensure_ascii=False))}")


def _policies(project: Project, names: Iterable[str]) -> None:
    for name in names:
        statement = project.policy.by_id.get(name)
        if statement is None:
            console.print(f"  {plain(name)}: no longer among the policies")
        else:
            console.print(f"  {plain(name)} at {plain(statement.where)}: {plain(statement.reason)}")


def _again(project: Project, body: Mapping[str, Json]) -> None:
    """Takes the decision again on what the record holds, to show single conditions."""
    code = str(body["code"])
    if code not in REFUSALS or REFUSALS[code].stage not in ("policy", "ask"):
        return
    recorded = body.get("arguments")
    arguments = dict(recorded) if isinstance(recorded, dict) else {}
    hidden = sorted(name for name, value in arguments.items() if _is_digest(value))
    if hidden:
        console.print(
            f"  not recorded in clear: {plain(', '.join(hidden))}; conditions on them cannot be "
            "shown\n  mend: recordable = [...] in catalog.toml, or lictor explain "
            f"{plain(body['tool'])} name=value --as ..."
        )
        return
    key = ToolKey.parse(str(body["tool"]))
    problem = _cannot_replay(project, body, key)
    if problem:
        console.print(f"  single conditions cannot be shown: {plain(problem)}")
        return
    console.print("  decided once more, with the policies as they are now:")
    chain = [text.partition(":") for text in _texts(body.get("chain"))]
    names = {kind: name.partition("/")[2] for kind, _, name in chain}
    autonomous = body.get("autonomous") is True
    case = _Case(
        key,
        arguments,
        names[Kind.AGENT.lower()],
        None if autonomous else names[Kind.USER.lower()],
        str(body["template"]),
        _texts(body.get("labels")),
        autonomous=autonomous,
    )
    _decide(project, case)


def _cannot_replay(project: Project, body: Mapping[str, Json], key: ToolKey) -> str:
    if project.catalog.known(key) is None:
        return "the tool is no longer reviewed"
    if body.get("depth") != 1:
        return "the call was made under a delegated grant"
    if body.get("template") not in project.templates:
        return "the task was opened without a template, or its template is gone"
    if _texts(body.get("met")):
        return "a person had answered an ask"
    return ""


def _decide(project: Project, case: _Case) -> None:
    known = _known(project, case.tool)
    with tempfile.TemporaryDirectory() as folder:
        with rehearsal(project, Path(folder).resolve()) as gate:
            tenant = project.settings.tenant
            if case.labels:
                labels = frozenset(case.labels)
                growth = GrowSession(_tenant(project, case) or tenant, _SESSION, labels=labels)
                gate.store.commit(writes=(growth,), durable=False).result(10)
            opened = gate.task(
                case.template,
                agent=case.agent,
                on_behalf_of=case.user,
                tools=case.tools,
                session=_SESSION,
                autonomous=case.autonomous,
            )
            with opened:
                decision, query = gate.rehearse(ToolCall(known.tool, case.arguments))
        _tell(decision)
        if query is not None:
            for line in explain_policy(project.policy, query).lines():
                console.print(f"    {plain(line)}")


def _tenant(project: Project, case: _Case) -> str | None:
    users, agents = project.settings.users, project.settings.agents
    part = users.get(case.user or "") or agents.get(case.agent)
    return part.tenant if part is not None else None


def _tell(decision: Decision) -> None:
    console.print(f"  {plain(decision.tool)}: {decision.verdict.value} ({decision.reason})")
    if decision.detail:
        console.print(f"    {plain(decision.detail)}")
    if decision.reason in REFUSALS:
        console.print(f"    mend: {plain(REFUSALS[decision.reason].mend)}")


def _known(project: Project, key: ToolKey) -> Known:
    known = project.catalog.known(key)
    if known is None:
        raise ConfigError(f"explain {key}", "is not reviewed", "lictor catalog lock")
    return known


def _arguments(known: Known, texts: Iterable[str]) -> dict[str, Json]:
    properties = known.tool.definition()["input_schema"]
    found: dict[str, Json] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("explain", f"{text!r} is not name=value", "amount=600")
        found[name] = value if _is_text(properties, name) else _value(value)
    return found


def _is_text(schema: Json, name: str) -> bool:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    part = properties.get(name) if isinstance(properties, dict) else None
    return isinstance(part, dict) and part.get("type") == "string"


def _value(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except ValueError:
        return text
    return value


def _texts(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _is_digest(value: Json) -> bool:
    return isinstance(value, dict) and set(value) == {"digest"}
