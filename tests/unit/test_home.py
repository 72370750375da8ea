"""The watchman: files that change under a running gate, tasks that end elsewhere."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lictor import home
from lictor.home import Watchman, seal


class Tasks:
    """A store that knows which tasks have ended, and the tasks of this process."""

    def __init__(self) -> None:
        self.over: frozenset[str] = frozenset()
        self.live: dict[str, Any] = {}
        self.broken: Exception | None = None

    def ended(self, tasks: Collection[str]) -> frozenset[str]:
        if self.broken is not None:
            raise self.broken
        return self.over & set(tasks)


class Task:
    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.seen = threading.Event()

    def end(self, *, wait: bool = True) -> tuple[str, ...]:
        self.ends.append(wait)
        self.seen.set()
        return ()


class Scene:
    """A folder with what a gate was made from, and what its watchman says."""

    def __init__(self, folder: Path) -> None:
        self.toml, self.policies = folder / "lictor.toml", folder / "policies"
        self.toml.write_text("a")
        self.policies.mkdir()
        (self.policies / "p.cedar").write_text("p")
        self.tasks = Tasks()
        self.told: list[str] = []
        self.held: list[str] = []
        self.taken = 0
        self.problem = "wider"

    def take(self) -> str:
        self.taken += 1
        return self.problem

    def watch(self, **more: Any) -> Watchman:
        files = (self.toml, self.policies, self.toml.with_name("catalog.toml"))
        given = {"take": self.take, "hold": self.held.append, "alarm": self.told.append, **more}
        return Watchman(
            files, seal(files), store=self.tasks, tasks=lambda: self.tasks.live, **given
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


# -- files (rules 1 and 2) ------------------------------------------------------------------------


def rewrite(scene: Scene) -> None:
    scene.toml.write_text("b")


def add_policy(scene: Scene) -> None:
    (scene.policies / "q.cedar").write_text("q")


def edit_policy(scene: Scene) -> None:
    (scene.policies / "p.cedar").write_text("q")


def open_to_others(scene: Scene) -> None:
    scene.toml.chmod(0o666)


def remove(scene: Scene) -> None:
    scene.toml.unlink()


def link(scene: Scene) -> None:
    scene.toml.rename(scene.toml.with_name("real"))
    scene.toml.symlink_to("real")


def appear(scene: Scene) -> None:
    scene.toml.with_name("catalog.toml").write_text("c")


def in_disguise(scene: Scene) -> None:
    """The size stays, and the time of the last change is set back."""
    before = scene.toml.stat()
    scene.toml.write_text("b")
    os.utime(scene.toml, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [rewrite, add_policy, edit_policy, open_to_others, remove, link, appear, in_disguise],
)
def test_every_change_holds_effects_back(scene: Scene, change: Callable[[Scene], None]) -> None:
    watchman = scene.watch()
    watchman.tick()
    assert (scene.held, scene.told) == ([], [])

    change(scene)
    watchman.tick()

    assert "wider" in scene.held[-1]
    assert "effects are denied" in scene.told[-1]
    assert len(scene.told) == 1


def test_it_is_said_once_and_tried_once(scene: Scene) -> None:
    watchman = scene.watch()
    rewrite(scene)
    for _ in range(3):
        watchman.tick()
    os.utime(scene.toml)
    watchman.tick()

    assert (scene.taken, len(scene.told)) == (1, 1)


def test_files_that_are_put_back_let_effects_go_on(scene: Scene) -> None:
    watchman = scene.watch()
    rewrite(scene)
    watchman.tick()
    scene.toml.write_text("a")
    watchman.tick()

    assert scene.held[-1] == ""
    assert "as they were read" in scene.told[-1]


def test_what_is_touched_and_not_changed_is_nothing(scene: Scene) -> None:
    watchman = scene.watch()
    os.utime(scene.toml)
    watchman.tick()

    assert (scene.held, scene.told, scene.taken) == ([], [], 0)


def test_what_is_narrower_is_taken_and_becomes_what_was_read(scene: Scene) -> None:
    scene.problem = ""
    watchman = scene.watch()
    rewrite(scene)
    watchman.tick()
    watchman.tick()

    assert scene.held == ["lictor.toml changed on disk", ""]
    assert scene.taken == 1
    scene.toml.write_text("a")  # the older, wider file is a change like any other now
    scene.problem = "wider"
    watchman.tick()
    assert "wider" in scene.held[-1]


def test_what_changes_while_it_is_read_is_not_trusted(scene: Scene) -> None:
    def take() -> str:
        scene.toml.write_text("c")
        return ""

    watchman = scene.watch(take=take)
    rewrite(scene)
    watchman.tick()

    assert "still changing" in scene.held[-1]


def test_reading_that_fails_is_a_change_not_taken(scene: Scene) -> None:
    def take() -> str:
        raise OSError("disk")

    watchman = scene.watch(take=take)
    rewrite(scene)
    watchman.tick()

    assert "disk" in scene.held[-1]


def test_a_file_changed_before_the_first_look_is_seen(scene: Scene) -> None:
    watchman = scene.watch()
    rewrite(scene)
    watchman.tick()
    assert scene.held


def test_without_a_hold_a_change_is_only_said(scene: Scene) -> None:
    watchman = scene.watch(hold=None)
    rewrite(scene)
    watchman.tick()
    watchman.tick()

    assert scene.told == ["lictor.toml changed on disk: wider"]


def test_what_the_gate_itself_wrote_is_no_change(scene: Scene) -> None:
    watchman = scene.watch()
    rewrite(scene)
    watchman.trust()
    watchman.tick()

    assert (scene.held, scene.told) == ([], [])


# -- tasks (rule 3) -------------------------------------------------------------------------------


def test_a_task_ended_elsewhere_ends_here_without_waiting(scene: Scene) -> None:
    over, other = Task(), Task()
    scene.tasks.live = {"a": over, "b": other}
    scene.tasks.over = frozenset({"a"})
    scene.watch().tick()

    assert (over.ends, other.ends) == ([False], [])


def test_a_task_that_cannot_be_ended_does_not_save_the_next(scene: Scene) -> None:
    class Stubborn(Task):
        def end(self, *, wait: bool = True) -> tuple[str, ...]:
            super().end(wait=wait)
            raise RuntimeError("no")

    live = {"a": Stubborn(), "b": Stubborn()}
    scene.tasks.live, scene.tasks.over = live, frozenset(live)
    scene.watch().tick()

    assert [task.ends for task in live.values()] == [[False], [False]]


def test_a_store_that_cannot_be_read_is_said_once_and_stops_nothing(scene: Scene) -> None:
    scene.tasks.live = {"a": Task()}
    scene.tasks.broken = RuntimeError("locked")
    watchman = scene.watch()
    rewrite(scene)
    watchman.look_at_tasks()
    watchman.look_at_tasks()
    watchman.look_at_files()

    assert len([text for text in scene.told if "locked" in text]) == 1
    assert scene.held


# -- the timer (rule 4) ---------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "EVERY", 0.001)


def test_it_looks_by_itself_until_it_is_stopped(scene: Scene, quick: None) -> None:
    task, alarmed = Task(), threading.Event()
    scene.tasks.live, scene.tasks.over = {"a": task}, frozenset({"a"})
    watchman = scene.watch(alarm=lambda text: alarmed.set())
    watchman.start()
    watchman.start()
    assert task.seen.wait(20)
    rewrite(scene)
    assert alarmed.wait(20)

    watchman.stop()
    watchman.stop()
    watchman.start()

    assert not [each for each in threading.enumerate() if each.name == "lictor-watchman"]


def test_an_error_does_not_end_the_watch(scene: Scene, quick: None) -> None:
    turns = threading.Event()

    class Failing(Tasks):
        count = 0

        def ended(self, tasks: Collection[str]) -> frozenset[str]:
            self.count += 1
            if self.count == 3:
                turns.set()
            raise SystemError("engine")

    scene.tasks = Failing()
    scene.tasks.live = {"a": Task()}

    def alarm(text: str) -> None:
        raise ValueError("the log is full")

    watchman = scene.watch(alarm=alarm)
    watchman.start()
    try:
        assert turns.wait(20)
    finally:
        watchman.stop()


def test_a_watchman_that_nobody_holds_goes(scene: Scene, quick: None) -> None:
    watchman = scene.watch()
    watchman.start()
    thread = next(each for each in threading.enumerate() if each.name == "lictor-watchman")
    gone = weakref.ref(watchman)
    del watchman
    thread.join(20)
    gc.collect()

    assert gone() is None
    assert not thread.is_alive()


@contextmanager
def holding(lock: Any) -> Iterator[None]:
    """The lock is another thread's, for as long as the block lasts."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_it_goes_on_in_a_forked_child(scene: Scene, quick: None) -> None:
    task = Task()
    scene.tasks.live = {"a": task}
    watchman = scene.watch()
    watchman.start()
    with holding(watchman._lock):  # as if the fork came in the middle of a look at the files
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(30)
                scene.tasks.over = frozenset({"a"})
                rewrite(scene)
                watchman.tick()
                code = 0 if task.seen.wait(20) and scene.held else 2
            finally:
                os._exit(code)
    _, status = os.waitpid(child, 0)
    watchman.stop()

    assert os.waitstatus_to_exitcode(status) == 0
