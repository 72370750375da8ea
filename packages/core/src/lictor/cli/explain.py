"""`lictor explain`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

from lictor import audit
from lictor.assemble import Project
from lictor.canonical import Json
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain
from lictor.errors import PERMIT, REFUSALS, ConfigError, mend
from lictor.model import Decision
from lictor.policy.explain import explain as explain_policy
from lictor.ports import SessionFacts
from lictor.rehearse import (
    Case,
    arguments_of,
    hidden,
    recorded_case,
    rehearsing,
    reviewed,
    texts,
)
from lictor.template import key_of


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
    known = reviewed(found, key, f"explain {key}")
    if agent is None:
        raise ConfigError("explain", "--as is missing", "name an agent of lictor.toml: --as banker")
    given = arguments_of(known, arguments or (), "explain")
    for each in label or ():
        if each not in found.declared.labels:
            known_labels = ", ".join(sorted(found.declared.labels))
            raise ConfigError("--label", f"no label {each!r} is declared", f"one of {known_labels}")
    facts = SessionFacts(labels=frozenset(label or ()))
    _decide(found, Case(key, given, agent, user, task, facts))


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
            f"{plain(body['tool'])}: {plain(body['verdict'])} ({plain(code)}), "
            f"{plain(body['enforcement'])}; decision {plain(body['id'])}"
        )
        _facts(body)
        if code != PERMIT and code in REFUSALS:
            console.print(f"  what it means: {REFUSALS[code].developer}")
            console.print(f"  mend: {plain(mend(code, tuple(texts(body.get('asks')))))}")
        _policies(project, texts(body.get("policies")))
        for outcome in audit.show(project.store, kind="outcome", call=str(body["call"])):
            console.print(f"  outcome: {plain(outcome.body['verdict'])}")
        _again(project, body)


def _facts(body: Mapping[str, Json]) -> None:
    if body.get("detail"):
        console.print(f"  detail: {plain(body['detail'])}")
    chain = texts(body.get("chain"))
    if chain:
        console.print(
            f"  chain: {plain(' -> '.join(chain))} ({plain(body['assurance'])}), "
            f"task {plain(body.get('template') or body['task'])}"
        )
    for name in ("labels", "asks", "met"):
        if texts(body.get(name)):
            console.print(f"  {name}: {plain(', '.join(texts(body[name])))}")
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
    digests = hidden(body)
    if digests:
        console.print(
            f"  not recorded in clear: {plain(', '.join(digests))}; conditions on them cannot be "
            "shown\n  mend: recordable = [...] in catalog.toml, or lictor explain "
            f"{plain(shlex.quote(str(body['tool'])))} name=value --as ..."
        )
        return
    case = recorded_case(project, body)
    if texts(body.get("met")):
        case = "a person had answered an ask"
    if isinstance(case, str):
        console.print(f"  single conditions cannot be shown: {plain(case)}")
        return
    console.print("  decided once more, with the policies as they are now:")
    _decide(project, case)


def _decide(project: Project, case: Case) -> None:
    with rehearsing(project) as rehearsal:
        decision, query = rehearsal.decide(case)
    _tell(decision)
    if query is not None:
        for line in explain_policy(project.policy, query).lines():
            console.print(f"    {plain(line)}")


def _tell(decision: Decision) -> None:
    console.print(f"  {plain(decision.tool)}: {decision.verdict.value} ({decision.reason})")
    if decision.detail:
        console.print(f"    {plain(decision.detail)}")
    if decision.reason in REFUSALS:
        console.print(f"    mend: {plain(mend(decision.reason, decision.asks))}")
