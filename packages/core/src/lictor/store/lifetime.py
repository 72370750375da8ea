"""Open stores over a fork and at exit.

Rules enforced here:

1. Before a fork each store ends the transaction in hand and closes its connections: a SQLite
   connection that two processes share corrupts the database.
2. After it the parent goes on; the child has an empty queue and begins a stream at first use.
3. A process that exits without closing its stores writes what waits.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol


class _Store(Protocol):
    def close(self) -> None: ...
    def before_fork(self) -> None: ...
    def after_fork(self, *, child: bool) -> None: ...


_open: list[_Store] = []
_forking: list[_Store] = []
_armed = False


def add(store: _Store) -> None:
    """Looks after a store; the first one arms the hooks."""
    global _armed
    _open.append(store)
    if not _armed:
        _armed = True
        os.register_at_fork(before=_before, after_in_parent=_parent, after_in_child=_child)
        atexit.register(_exit)


def writes() -> None:
    """Sees to it that a process that begins to write ends by closing its stores.

    A `multiprocessing` child leaves by `os._exit`, which runs its finalizers and not `atexit`.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _exit, exitpriority=0)


def remove(store: _Store) -> None:
    """Forgets a closed store."""
    if store in _open:
        _open.remove(store)


def _before() -> None:
    _forking[:] = _open
    for store in _forking:
        store.before_fork()


def _parent() -> None:
    for store in _forking:
        store.after_fork(child=False)
    _forking.clear()


def _child() -> None:
    for store in _forking:
        store.after_fork(child=True)
    _forking.clear()


def _exit() -> None:
    while _open:
        _open[-1].close()
