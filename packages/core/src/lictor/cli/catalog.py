"""`lictor catalog lock|diff`."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lictor import catalog
from lictor.catalog import Catalog
from lictor.catalog.entries import read_lock
from lictor.cli.gateway import loaded
from lictor.cli.hint import refuse_under_gate
from lictor.cli.shared import DEFAULT, Place, ProjectFile, console, place, plain
from lictor.errors import ConfigError
from lictor.model import Tool, ToolKey
from lictor.template import key_of

app = typer.Typer(help="The reviewed tools.", no_args_is_help=True)

Server = Annotated[
    str, typer.Option(help="Ask this server of lictor.toml now, or the one behind --.")
]
Env = Annotated[
    list[str] | None,
    typer.Option(help="A variable of the environment that the server behind -- gets."),
]


class _AfterDashes(TyperCommand):
    """What stands behind `--` is the command of a server, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = []
        if "--" in args:
            cut = args.index("--")
            args, ctx.obj = args[:cut], args[cut + 1 :]
        return super().parse_args(ctx, args)


@app.command(cls=_AfterDashes)
def diff(
    ctx: typer.Context,
    server: Server = "",
    env: Env = None,
    project: ProjectFile = DEFAULT,
) -> None:
    """Shows what is new or has changed among the tools that gates have met; exit code 1 if any.

    With --server: among those that this server offers now, and what it no longer offers.
    """
    found = place(project)
    reviewed = found.reviewed()
    live = _offered(found, server, ctx.obj, env or [])
    gone: Collection[ToolKey] = ()
    if live is None:
        seen = catalog.read_seen(found.seen)
    else:
        seen, gone = _by_key(live), live.gone(reviewed.locked)
        _note(found, seen)
    changes = catalog.diff(reviewed, seen)
    _show(changes)
    for key in gone:
        console.print(f"{plain(key)} is locked, and {plain(server)} no longer offers it")
    if gone:
        console.print(
            f"  mend: take them out of {plain(found.catalog)}, then lictor catalog lock "
            f"--server {plain(server)}"
        )
    if changes or gone:
        raise typer.Exit(1)
    console.print("nothing has changed")


@app.command(cls=_AfterDashes)
def lock(
    ctx: typer.Context,
    accept: Annotated[
        list[str] | None,
        typer.Argument(help="Changed tools whose new definition you accept (see diff)."),
    ] = None,
    server: Server = "",
    env: Env = None,
    project: ProjectFile = DEFAULT,
) -> None:
    """Adds the tools that gates have met to the catalog, and moves the pins that you accept.

    With --server: those that this server offers now. A new tool gets `impact = []`, which denies
    it, until you write down what it can do.
    """
    found = place(project)  # the catalog itself may be what has to be mended
    refuse_under_gate(found.store)
    accepted = {key_of(text) for text in accept or ()}
    before = _locked(found) if server else Catalog()
    live = _offered(found, server, ctx.obj, env or [])
    seen = catalog.read_seen(found.seen)
    if live is not None:
        _refuse_unseen(server, accepted, _by_key(live), seen)
        seen = _by_key(live)
        _note(found, seen)
    unknown = accepted - set(seen)
    if unknown:
        raise typer.BadParameter(f"no gate has met {_names(unknown)}; start your program once")
    done = catalog.lock(found.catalog, found.lock, seen, accepted)
    for word, keys in (("added", done.added), ("pinned", done.moved), ("waiting", done.waiting)):
        if keys:
            console.print(f"{word}: {_names(keys)}")
    if server:
        _show(catalog.diff(before, {key: seen[key] for key in done.waiting}))
    if done.added:
        console.print(
            f"next: lictor review, or write each tool's impact into {plain(found.catalog)}"
        )
    if done.waiting:
        words = plain(" ".join(shlex.quote(str(key)) for key in sorted(done.waiting)))
        first = "lictor review, or" if server else "lictor catalog diff, then"
        console.print(f"next: {first} lictor catalog lock {words}")
    if not (done.added or done.moved or done.waiting):
        console.print("nothing to do")


def _offered(found: Place, server: str, command: list[str], env: list[str]) -> Any:
    """What a server offers now; `None` if none was named."""
    if not server:
        if command or env:
            raise typer.BadParameter("say with --server what the catalog calls the server")
        return None
    if env and not command:
        raise typer.BadParameter("--env is for a server behind --")
    refuse_under_gate(found.store)  # it would be asked with our credential
    return loaded("lictor_mcp.gateway.look").offered(
        server, found.settings.mcp, project=found.toml, command=command, env=env
    )


def _locked(found: Place) -> Catalog:
    """What was locked, also if the catalog itself does not load.

    Raises:
        ConfigError: The lock is damaged: it is made anew from all servers, not from one.
    """
    return Catalog(locked=read_lock(found.lock) if found.lock.exists() else {})


def _by_key(live: Any) -> dict[ToolKey, Tool]:
    return {tool.key: tool for tool in live.tools}


def _note(found: Place, tools: Mapping[ToolKey, Tool]) -> None:
    try:
        catalog.note(found.seen, tools.values())
    except OSError as error:
        raise ConfigError(
            str(found.seen), f"cannot be written: {error.strerror}", f"make {found.state} writable"
        ) from None


def _refuse_unseen(
    server: str,
    accepted: Collection[ToolKey],
    live: Mapping[ToolKey, Tool],
    shown: Mapping[ToolKey, Tool],
) -> None:
    """A server that answers otherwise once its change is to be accepted gets nowhere.

    Raises:
        ConfigError: What would be accepted is not there, or not what was shown.
    """
    for key in accepted:
        if key not in live:
            raise ConfigError(str(key), f"is nothing that {server} offers", "mend the name")
        if shown.get(key) != live[key]:
            raise ConfigError(
                str(key),
                "is not what was shown last",
                f"lictor catalog diff --server {server}",
            )


def _show(changes: Iterable[catalog.Change]) -> None:
    for change in changes:
        console.print(str(change), markup=False)  # shows what is invisible by itself


def _names(keys: Iterable[ToolKey]) -> str:
    return plain(" ".join(map(str, sorted(keys))))
