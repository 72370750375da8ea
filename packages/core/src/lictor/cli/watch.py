"""`lictor watch`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated, Final, NoReturn

import typer

from lictor.approval import NoTerminal, watching
from lictor.approval.tty import DEVICE, behind, device, taken
from lictor.assemble import record_key
from lictor.cli import explain as explaining
from lictor.cli.hint import WATCH, refuse_under_gate
from lictor.cli.lookout import TICK, Lookout
from lictor.cli.shared import DEFAULT, ProjectFile, place
from lictor.cli.tail import Tail, event, line
from lictor.dev import account
from lictor.errors import ConfigError, StoreError
from lictor.forms import visible
from lictor.place import Place
from lictor.store import open_store

LOCK: Final = "watch.lock"
_PRINT: Final = "lictor watch --no-input only prints decisions and needs no terminal"


def watch(
    project: ProjectFile = DEFAULT,
    last: Annotated[int, typer.Option(help="How many decisions to begin with.", min=0)] = 10,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Only print what is decided, and answer nothing.")
    ] = False,
) -> None:
    """Shows what is decided as it happens, answers what is asked, and ends tasks.

    Questions of programs that have no terminal of their own, and of Gate.from_file, come here; y
    or n answers. Press ? for the other keys. What you answer is a confirm:user by whoever sits
    here: nobody's identity is proved, and it is no approval by somebody else.
    """
    found = place(project)
    if no_input or not sys.stdout.isatty():
        _follow(found, last, told=no_input)
        return
    refuse_under_gate(found.store)
    try:
        _sit(found, last)
    except NoTerminal as error:
        _leave(str(error))


def _leave(why: str) -> NoReturn:
    sys.stderr.write(f"lictor: {why.partition(';')[0]}; {_PRINT}\n")
    raise typer.Exit(2)


def _sit(found: Place, last: int) -> None:
    """The watch of a person: holds the lock that tells gates somebody is here."""
    handle = device(DEVICE)
    unready = behind(handle)
    if unready:
        os.close(handle)
        raise NoTerminal(unready)
    store = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the modes are put back
    try:
        key = record_key(found.state / "record.key")
        store = open_store(found.store, placement=WATCH)
        with watching(found.state / LOCK), Tail(store.path, last) as tail, taken(handle) as tty:
            title = f"watching {visible(found.folder.name)} ({found.settings.profile})"
            colour = "NO_COLOR" not in os.environ
            person = account()
            Lookout(tty, store, tail, key.digest, person, title, _explain(found), colour).run()
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise StoreError(
            f"{found.state / LOCK}: {error.strerror}", "make the folder writable for this user"
        ) from error
    finally:
        if store is not None:
            store.close()


def _explain(found: Place) -> Callable[[str], None]:
    """Prints `lictor explain` for a decision; a project that cannot be read now says so."""

    def explain(decision: str) -> None:
        try:
            explaining.explain(decision, None, found.toml)
        except Exception as error:  # whatever it is, somebody still watches
            sys.stdout.write(f"  cannot be explained now: {visible(str(error))}\n")
        sys.stdout.flush()

    return explain


def _follow(found: Place, last: int, *, told: bool) -> None:
    """For logs: lines, and nothing else."""
    if not told:
        try:
            os.close(device(DEVICE))
        except NoTerminal as error:
            _leave(str(error))
        sys.stderr.write("lictor: the output goes elsewhere, so nothing is asked here\n")
    if not found.store.exists():
        raise ConfigError(
            str(found.store), "there is no store yet", "start your program once, then watch"
        )
    number = 0
    try:
        with Tail(found.store, last) as tail:
            while True:
                for body in tail.new() if tail.moved() else ():
                    decision = body.get("kind") == "decision"
                    number += decision
                    text = line(number, body, colour=False) if decision else event(body)
                    if text:
                        sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
                time.sleep(TICK)
    except (KeyboardInterrupt, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
