"""`lictor audit verify|show|report|export`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TextIO

import typer

from lictor import audit as journal
from lictor.assemble import Project
from lictor.canonical import Json
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain
from lictor.errors import ConfigError

Expect = Annotated[
    list[str] | None,
    typer.Option(help="stream:seq:hash of a head kept elsewhere; shows a cut tail."),
]

app = typer.Typer(help="Reads and verifies the record.", no_args_is_help=True)


@app.command()
def verify(
    project: ProjectFile = DEFAULT,
    exported: Annotated[
        Path | None, typer.Option("--file", help="An exported file instead of the store.")
    ] = None,
    expect: Expect = None,
) -> None:
    """Checks every chain of records. Detects accidental damage.

    Against a rewritten store it helps only together with a head that lies elsewhere (every
    decision's log event carries one): give it with --expect.
    """
    heads = [journal.parse_head(text) for text in expect or ()]
    if exported is not None and _is_report(exported):
        _check(exported, expect)
        return
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


Since = Annotated[str | None, typer.Option(help="Made at or after: 2026-10-01, or 2h (ago).")]
Until = Annotated[str | None, typer.Option(help="Made before; a day is included.")]
ToolName = Annotated[str, typer.Option(help="server/name, or local/* for several.")]
OfImpact = Annotated[str, typer.Option("--impact", help="read, write, delete, send, …")]
OfVerdict = Annotated[str, typer.Option("--verdict", help="allow, deny, ask, done, failed, …")]
Code = Annotated[str, typer.Option(help="Reason code.")]
Agent = Annotated[str, typer.Option(help="Who acted.")]
User = Annotated[str, typer.Option(help="For whom.")]
Tenant = Annotated[str, typer.Option(help="Tenant.")]
Approver = Annotated[str, typer.Option(help="Who answered an ask.")]
TaskId = Annotated[str, typer.Option("--task", help="Task id.")]
Template = Annotated[str, typer.Option(help="Task template.")]
Session = Annotated[str, typer.Option(help="The host's id of the conversation.")]
KindOf = Annotated[str, typer.Option("--kind", help="decision, outcome, ask, answer, task, …")]


@app.command()
def show(
    project: ProjectFile = DEFAULT,
    limit: Annotated[int, typer.Option(min=1, help="How many of those chosen, at most.")] = 50,
    since: Since = None,
    until: Until = None,
    kind: KindOf = "",
    tool: ToolName = "",
    impact: OfImpact = "",
    verdict: OfVerdict = "",
    code: Code = "",
    agent: Agent = "",
    user: User = "",
    tenant: Tenant = "",
    approver: Approver = "",
    task: TaskId = "",
    template: Template = "",
    session: Session = "",
    as_json: Annotated[bool, typer.Option("--json", help="Whole records, a line each.")] = False,
) -> None:
    """Shows the newest records that fit."""
    start, end = _period(since, until)
    lines = journal.show(
        open_project(project).store,
        limit=limit,
        since=start,
        until=end,
        kind=kind,
        tool=_tool(tool),
        impact=impact,
        verdict=verdict,
        code=code,
        agent=agent,
        user=user,
        tenant=tenant,
        approver=approver,
        task=task,
        template=template,
        session=session,
    )
    found = False
    for line in lines:
        found = True
        if as_json:
            sys.stdout.write(f"{line}\n")
        else:
            console.print(_told(line.body))
    if not found and not as_json:
        console.print("no record fits")


def _told(body: Mapping[str, Json]) -> str:
    what = " ".join(plain(body[name]) for name in ("tool", "verdict", "code") if body[name])
    identifier = plain(body.get("id", body.get("decision", body.get("ask", ""))))
    by = f" by {plain(body['by'])}" if body["kind"] == "answer" and body.get("by") else ""
    return f"{journal.shown(body['at'])} {plain(body['kind']):<9} {what}{by} {identifier}"


def _period(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    now = time.time()
    start = None if since is None else journal.instant(since, "--since", now)
    end = None if until is None else journal.instant(until, "--until", now, end=True)
    if start is not None and end is not None and start >= end:
        raise ConfigError("--until", f"{until!r} is not after {since!r}", "swap them")
    return start, end


def _tool(text: str) -> str:
    """A bare name is a local tool, as everywhere."""
    return f"local/{text}" if text and "/" not in text else text


@app.command()
def report(
    project: ProjectFile = DEFAULT,
    since: Since = None,
    until: Until = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Where to; lictor-report.html if left out.")
    ] = None,
    twin: Annotated[Path | None, typer.Option("--json", help="The same as JSON.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check a report that was written, without the store.")
    ] = None,
    expect: Expect = None,
    tool: ToolName = "",
    impact: OfImpact = "",
    verdict: OfVerdict = "",
    code: Code = "",
    agent: Agent = "",
    user: User = "",
    tenant: Tenant = "",
    approver: Approver = "",
    task: TaskId = "",
    template: Template = "",
    session: Session = "",
) -> None:
    """Writes one file that answers: what was decided, under which rule, who was asked.

    Exit code 1 if the store, or the report that is checked, is damaged.
    """
    if check is not None:
        _check(check, expect)
        return
    start, end = _period(since, until)
    wanted = journal.Filters(
        start,
        end,
        tool=_tool(tool),
        impact=impact,
        verdict=verdict,
        code=code,
        agent=agent,
        user=user,
        tenant=tenant,
        approver=approver,
        task=task,
        template=template,
        session=session,
    )
    if page is None and twin is None:
        page = Path("lictor-report.html")
    _report(open_project(project), wanted, page, twin)


def _report(
    project: Project, wanted: journal.Filters, page: Path | None, twin: Path | None
) -> None:
    head: dict[str, Json] = {
        "project": project.path.parent.name,
        "written": f"{journal.shown(int(time.time() * 1e6))} UTC",
        "version": version("lictor"),
    }
    with journal.gather(project.store, wanted, head) as found:
        hidden = journal.unrecorded(found, project.catalog.known_tools())
        for path, write in ((page, journal.write_page), (twin, journal.write_json)):
            if path is not None:
                _written(path, lambda out, write=write: write(found, hidden, out))  # type: ignore[misc]
                console.print(f"wrote {plain(path)}")
        state = "intact" if found.ok else "DAMAGED"
        console.print(f"{found.count} decisions; records {state}; gaps: {len(found.gaps)}")
        if not found.ok:
            raise typer.Exit(1)


def _written(path: Path, write: Callable[[TextIO], None]) -> None:
    """Writes a file whole or not at all."""
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with spare.open("x", encoding="utf-8", newline="\n") as out:
            write(out)
        spare.replace(path)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be written: {error.strerror}", "name another file"
        ) from None
    finally:
        spare.unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as start:
            return journal.is_report(start.read(100))
    except OSError:
        return False


def _check(path: Path, expect: list[str] | None) -> None:
    heads = [journal.parse_head(text) for text in expect or ()]
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", "name a report") from None
    found = journal.check(text, expect=heads)
    for problem in found.verification.problems:
        console.print(plain(problem), style="red")
    if found.damaged:
        console.print("the report says that its store was damaged", style="red")
    if found.unproven:
        console.print(
            f"{found.unproven} records or rules lie outside the period, so they are not proven here"
        )
    state = "intact" if found.ok else "DAMAGED"
    console.print(f"{found.verification.records} records of the period, {state}")
    if not found.ok:
        raise typer.Exit(1)


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
