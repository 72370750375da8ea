"""`lictor test` and `lictor test add`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Annotated

import typer

from lictor import audit
from lictor.assemble import Project, read
from lictor.canonical import Json
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain, plain_lines
from lictor.errors import ConfigError
from lictor.model import Verdict
from lictor.policytest import Result, read_tests, run
from lictor.policytest.adding import add as add_test

app = typer.Typer(help="Tries policy_tests.yaml on the project's policies.")


@app.callback(invoke_without_command=True)
def try_all(
    context: typer.Context,
    project: ProjectFile = DEFAULT,
    guardrails: Annotated[
        bool, typer.Option("--guardrails", help="Try the tests that ship with the guardrails.")
    ] = False,
) -> None:
    """Tries every policy test; exit code 1 if one fails."""
    if context.invoked_subcommand is not None:
        return
    if guardrails:
        with as_file(files("lictor.policytest") / "starter-1") as folder:
            failed = _run(read(folder.resolve() / "lictor.toml"))
    else:
        failed = _run(open_project(project))
    if failed:
        raise typer.Exit(1)


@app.command()
def add(
    what: Annotated[str, typer.Argument(help="last, or a decision or call id.")],
    name: Annotated[str, typer.Option(help="Name of the test.")] = "",
    arg: Annotated[
        list[str] | None, typer.Option(help="name=value of an argument not recorded in clear.")
    ] = None,
    expect: Annotated[
        Verdict | None, typer.Option(help="What should have been decided, if not what was.")
    ] = None,
    project: ProjectFile = DEFAULT,
) -> None:
    """Makes a test of what has happened and adds it to policy_tests.yaml."""
    found = open_project(project)
    added = add_test(found, _decision(found, what), given=arg or (), name=name, expect=expect)
    if added.known:
        console.print(f"nothing added: {plain(added.known)} is this test")
        return
    console.print(f"added to {plain(added.path)}:\n{plain_lines(added.text.rstrip())}")
    if added.omitted:
        console.print(f"not recorded, so left out: {plain(', '.join(added.omitted))}")
    if added.problem:
        console.print(f"it does not pass yet: {plain(added.problem)}", style="yellow")
    console.print("next: lictor test")


def _decision(project: Project, what: str) -> Mapping[str, Json]:
    if what == "last":
        lines = list(audit.show(project.store, kind="decision", limit=1))
    else:
        found = audit.find(project.store, what)
        lines = [line for line in found if line.body["kind"] == "decision"]
        lines = [line for line in lines if line.body["id"] == what] or lines[-1:]
    if not lines:
        raise ConfigError("test add", f"no decision {what!r} is recorded", "lictor audit show")
    return lines[-1].body


def _run(project: Project) -> int:
    passed = failed = 0
    for result in run(project, read_tests(project)):
        if result.problem:
            failed += 1
            _tell(result)
        else:
            passed += 1
            console.print(f"ok    {plain(result.test.name)}: {result.decision.verdict.value}")
    console.print(f"{passed} passed, {failed} failed")
    return failed


def _tell(result: Result) -> None:
    test, decision = result.test, result.decision
    console.print(f"FAIL  {plain(test.name)} ({plain(test.where)})", style="red")
    console.print(f"      {plain(result.problem)}")
    if decision.detail and decision.verdict != Verdict.ASK:  # nobody is there to be asked here
        console.print(f"      {plain(decision.detail)}")
