"""`lictor gateway`: what it takes from the command line; the gateway itself is `lictor-mcp`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lictor.cli import review
from lictor.cli.shared import absolute, console, plain, plain_lines
from lictor.errors import ConfigError
from lictor.protect import refuse_unsafe
from lictor.settings import load


class _AfterDashes(TyperGroup):
    """What stands behind `--` is the command of a server, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = []
        if "--" in args:
            cut = args.index("--")
            args, ctx.obj = args[:cut], args[cut + 1 :]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_AfterDashes, invoke_without_command=True, help="Stands before an MCP server."
)


@app.callback()
def gateway(
    ctx: typer.Context,
    project: Annotated[
        Path | None,
        typer.Option("--project", "-p", help="lictor.toml; a folder of its own if left out."),
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Only this server of the project; may be repeated.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the catalog calls the server behind --.")] = "",
    agent: Annotated[str, typer.Option(help="The agent that acts through this client.")] = "",
    task: Annotated[str, typer.Option(help="The task template that a connection gets.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(help="A variable of the environment that the server gets; may be repeated."),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT: serves HTTP there, instead of stdin and stdout.")
    ] = "",
    upstream: Annotated[str, typer.Option(help="With --listen: where the one server is.")] = "",
    bearer: Annotated[
        list[str] | None, typer.Option(help="With --listen: a caller's token file (mode 0600).")
    ] = None,
) -> None:
    """Relays between an MCP client and a server: lictor gateway [options] -- COMMAND.

    Every call is decided, recorded, and forwarded as it came, or not at all.
    """
    if ctx.invoked_subcommand is not None:
        return
    file = None if project is None else absolute(project)
    if not listen and not ctx.obj and file is not None:
        listen = _listens(file)
    if listen:
        raise typer.Exit(
            _http(
                ctx.obj,
                listen,
                file,
                upstream=upstream,
                name=name,
                servers=server or (),
                agent=agent,
                task=task,
                bearer=bearer or (),
            )
        )
    if upstream or bearer:
        where = "--upstream" if upstream else "--bearer"
        raise ConfigError(where, "is for HTTP", "--listen 127.0.0.1:8700")
    code = loaded("lictor_mcp.gateway").run_stdio(
        ctx.obj,
        project=file,
        servers=server or (),
        name=name,
        agent=agent,
        task=task,
        env=env or (),
    )
    raise typer.Exit(code)


@app.command()
def install(
    client: Annotated[
        str, typer.Argument(help="claude-desktop, cursor, vscode, windsurf, or a file: .mcp.json")
    ],
    servers: Annotated[list[str] | None, typer.Argument(help="As the client calls them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All servers of the client.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what changes.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the gateway out again.")] = False,
    project: Annotated[
        Path | None,
        typer.Option("--project", "-p", help="lictor.toml that decides; else a folder for each."),
    ] = None,
) -> None:
    """Puts the gateway before servers in the configuration of a client, and reviews their tools."""
    module = loaded("lictor_mcp.gateway.install")
    path, wanted = module.config_of(client), servers or []
    file = None if project is None else absolute(project)
    made = (
        module.undo(path, wanted, every=every)
        if undo
        else module.plan(path, wanted, every=every, project=file)
    )
    for each in made.left:
        console.print(f"left as it is: {plain(each)}")
    if not made.entries:
        console.print("nothing to do")
        return
    console.print(plain_lines(made.difference))
    if dry_run:
        return
    console.print(f"written; what was there is kept in {plain(made.write())}")
    if not undo:
        for entry in made.entries:
            _review(entry, file)
    console.print("restart the client to use it")


def _review(entry: Any, project: Path | None) -> None:
    """Has the tools of a server reviewed, where somebody is there to do it."""
    folder, waiting = loaded("lictor_mcp.gateway.look").look(
        entry.id, entry.command, entry.env, project=project
    )
    told = f"{entry.name}: {waiting} tools wait for review"
    if waiting and sys.stdin.isatty() and sys.stdout.isatty():
        console.print(plain(told))
        review.review(confirm=False, server=[entry.id], project=folder)
    else:
        console.print(plain(f"{told}: lictor review -p {folder}" if waiting else told))


def _listens(file: Path) -> str:
    """Where a project says that its gateway listens; empty: nowhere."""
    mcp = load(refuse_unsafe(file / "lictor.toml" if file.is_dir() else file)).mcp
    return "" if mcp is None else mcp.listen or ""


def _http(command: list[str], listen: str, project: Path | None, **more: Any) -> int:
    if command:
        raise ConfigError(
            "--listen", "serves addresses, and what stands behind -- is a command", "--upstream URL"
        )
    if project is None:
        raise ConfigError(
            "--listen", "callers over HTTP need a project that knows them", "-p /path/lictor.toml"
        )
    code: int = loaded("lictor_mcp.gateway.http_run").run_http(listen, project=project, **more)
    return code


def loaded(name: str) -> Any:
    """A module of the gateway.

    Raises:
        ConfigError: It is not installed; says what is to be installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("lictor_mcp", "starlette", "uvicorn", "httpx"):
            raise
        raise ConfigError(
            "lictor gateway", f"{missing} is not installed", 'pip install "lictor[mcp]"'
        ) from None
