"""`lictor audit verify|show|export`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lictor import audit as journal
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain
from lictor.errors import ConfigError

app = typer.Typer(help="Reads and verifies the record.", no_args_is_help=True)


@app.command()
def verify(
    project: ProjectFile = DEFAULT,
    exported: Annotated[
        Path | None, typer.Option("--file", help="An exported file instead of the store.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(help="stream:seq:hash of a head kept elsewhere; shows a cut tail."),
    ] = None,
) -> None:
    """Checks every chain of records. Detects accidental damage.

    Against a rewritten store it helps only together with a head that lies elsewhere (every
    decision's log event carries one): give it with --expect.
    """
    heads = [journal.parse_head(text) for text in expect or ()]
    if exported is not None:
        try:
            with exported.open(encoding="utf-8", errors="replace") as lines:
                found = journal.verify_lines(lines, expect=heads)
        except OSError as error:
            raise ConfigError(
                str(exported), f"cannot be read: {error.strerror}", "name an exported file"
            ) from None
    else:
        found = journal.verify(open_project(project).store, expect=heads)
    for stream in found.streams:
        state = "closed" if stream.closed else "open"
        console.print(f"{stream.stream}  {stream.records} records, {state}")
        console.print(f"  head {stream.stream}:{stream.last}:{stream.head}")
    for problem in found.problems:
        console.print(plain(problem), style="red")
    console.print(f"{found.records} records, " + ("intact" if found.ok else "DAMAGED"))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def show(
    project: ProjectFile = DEFAULT,
    limit: Annotated[int, typer.Option(help="How many records at most.")] = 50,
    since: Annotated[str | None, typer.Option(help="Not older than this time (ISO 8601).")] = None,
    task: Annotated[str | None, typer.Option(help="Task id.")] = None,
    tool: Annotated[str | None, typer.Option(help="server/name.")] = None,
    verdict: Annotated[str | None, typer.Option(help="allow, deny, ask, done, failed, …")] = None,
    code: Annotated[str | None, typer.Option(help="Reason code.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Whole records, a line each.")] = False,
) -> None:
    """Shows the newest records."""
    given = {"task": task, "tool": tool, "verdict": verdict, "code": code}
    where = {name: value for name, value in given.items() if value is not None}
    lines = journal.show(open_project(project).store, limit=limit, since=_instant(since), **where)
    if as_json:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        return
    for line in lines:
        body = line.body
        at = datetime.fromtimestamp(int(str(body["at"])) / 1e6, UTC)
        what = " ".join(plain(body[name]) for name in ("tool", "verdict", "code") if body[name])
        identifier = plain(body.get("id", body.get("decision", "")))
        console.print(f"{at:%Y-%m-%d %H:%M:%S} {plain(body['kind']):<9} {what} {identifier}")


@app.command()
def export(
    project: ProjectFile = DEFAULT,
    follow: Annotated[bool, typer.Option(help="Go on as records come, until Ctrl-C.")] = False,
) -> None:
    """Writes all records as JSON lines; `audit verify --file` checks them anywhere."""
    try:
        journal.export(open_project(project).store, out=sys.stdout, follow=follow)
    except KeyboardInterrupt:
        sys.stdout.flush()


def _instant(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "--since", f"{text!r} is not a time", "--since 2026-10-01T00:00"
        ) from None
    return (at if at.tzinfo else at.astimezone()).timestamp()
