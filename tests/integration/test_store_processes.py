"""One store, several processes: forks, crashes and races that really happen."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lictor.audit import verify
from lictor.ports import Head
from lictor.store import open_store

WAIT = 60
PRELUDE = """
import json, os, signal, sys, threading, time
from pathlib import Path
from lictor.ports import *
from lictor.store import open_store
path = Path(sys.argv[1])

def start(store, call, **more):
    digest = more.pop("digest", "d-" + call)
    row = CallRow(call, "started", digest, "local/pay", "T", "D-" + call)
    return store.commit(
        (CallIsNew(call, digest, "acme", "c"), *more.pop("guards", ())),
        (StartCall(row, "acme", "c", more.pop("spend", 1)),),
        (Entry("decision", 1, {"id": "D-" + call}, call=call, verdict="allow"),),
        durable=True,
    ).result(30)

def settle(store, call, outcome="done"):
    entry = Entry("outcome", 2, {}, call=call, verdict=outcome)
    return store.commit((), (SettleCall(call, outcome),), (entry,), durable=False).result(30)

def task(store, name="T"):
    row = TaskRow(name, "running", "acme", "c", {})
    return store.commit((), (PutTask(row),), (), durable=True).result(30)

def say(store, **body):
    return store.commit((), (), (Entry("decision", 1, body),), durable=True).result(30)

def tell(*words):
    print(*words, flush=True)

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lictor.db"


def begin(path: Path, script: str, *arguments: object) -> subprocess.Popen[str]:
    code = PRELUDE + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], code: int = 0) -> list[str]:
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == code
    return out.splitlines()


def run(path: Path, script: str, *arguments: object, code: int = 0) -> list[str]:
    return end(begin(path, script, *arguments), code)


def rows(path: Path, query: str) -> list[tuple]:
    db = sqlite3.connect(path)
    found = db.execute(query).fetchall()
    db.close()
    return found


def sound(path: Path) -> None:
    found = verify(path)
    assert found.ok, [str(problem) for problem in found.problems]


# -- forks


def test_a_forked_child_writes_its_own_stream_and_neither_hangs(path):
    script = """
        store = open_store(path)
        task(store)
        start(store, "before")
        child = os.fork()
        if child == 0:
            signal.alarm(50)
            say(store, who="child")
            start(store, "child")
            tell("child", store.head.stream, store.call("before").state, store.task("T").calls)
            store.close()
            os._exit(0)
        tell("parent", store.head.stream)
        say(store, who="parent")
        start(store, "parent")
        os.waitpid(child, 0)
        settle(store, "before")
        say(store, who="parent again")
        store.close()
    """
    said = dict(line.split(" ", 1) for line in run(path, script))
    child, before, calls = said["child"].split()
    assert child != said["parent"]
    assert (before, int(calls) >= 2) == ("started", True)
    sound(path)
    assert rows(path, "SELECT count(DISTINCT stream) FROM record") == [(2,)]
    assert rows(path, "SELECT calls FROM task") == [(3,)]
    assert rows(path, "SELECT state FROM call WHERE id = 'before'") == [("done",)]


def test_a_fork_in_a_storm_of_commits_leaves_both_whole(path):
    script = """
        store = open_store(path)
        stop = threading.Event()
        def storm():
            while not stop.is_set():
                say(store, who=os.getpid())
        threads = [threading.Thread(target=storm) for _ in range(4)]
        for thread in threads: thread.start()
        children = []
        for n in range(12):
            child = os.fork()
            if child == 0:
                signal.alarm(50)
                for k in range(20): say(store, n=n, k=k)
                store.close()
                os._exit(0)
            children.append(child)
        tell(*(os.waitpid(child, 0)[1] for child in children))
        stop.set()
        for thread in threads: thread.join()
        store.close()
    """
    [codes] = run(path, script)
    assert codes.split() == ["0"] * 12
    sound(path)
    told = rows(path, "SELECT count(*) FROM record WHERE instr(body, CAST('\"k\":' AS BLOB))")
    assert told == [(240,)]
    assert rows(path, "SELECT count(*), min(closed > 0) FROM stream") == [(13, 1)]


def test_a_fork_does_not_write_the_parents_waiting_records_twice(path):
    script = """
        store = open_store(path)
        with store._database.busy:
            futures = [
                store.commit((), (), (Entry("decision", 1, {"n": n}),), durable=False)
                for n in range(50)
            ]
            child = os.fork()
            if child == 0:
                say(store, who="child")
                store.close()
                os._exit(0)
        for future in futures: future.result(30)
        tell(os.waitpid(child, 0)[1])
        store.close()
    """
    assert run(path, script) == ["0"]
    sound(path)
    told = rows(path, "SELECT count(*) FROM record WHERE instr(body, CAST('\"n\":' AS BLOB))")
    assert told == [(50,)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_open_file_of_the_store_crosses_a_fork(path):
    script = """
        store = open_store(path)
        task(store)
        store.task("T")
        child = os.fork()
        if child == 0:
            links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            tell(sum("lictor.db" in os.readlink(link) for link in links if os.path.lexists(link)))
            os._exit(0)
        os.waitpid(child, 0)
        say(store, n=1)
        store.close()
    """
    assert run(path, script) == ["0"]


def test_a_child_that_never_uses_the_store_leaves_no_trace(path):
    script = """
        store = open_store(path)
        child = os.fork()
        if child == 0:
            sys.exit(0)
        tell(os.waitpid(child, 0)[1])
        say(store, n=1)
        store.close()
    """
    assert run(path, script) == ["0"]
    sound(path)
    assert rows(path, "SELECT count(*) FROM stream") == [(1,)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_multiprocessing_child_that_just_returns_loses_nothing(path, tmp_path, method):
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys
            from pathlib import Path
            from lictor.ports import Entry
            from lictor.store import open_store

            store = None

            def work(path):
                global store
                store = store or open_store(Path(path))
                for n in range(300):
                    store.commit((), (), (Entry("decision", 1, {"n": n}),), durable=False)

            if __name__ == "__main__":
                method, path = sys.argv[1:]
                if method == "fork":
                    store = open_store(Path(path))
                child = multiprocessing.get_context(method).Process(target=work, args=(path,))
                child.start()
                child.join()
                sys.exit(child.exitcode)
            """
        )
    )
    subprocess.run([sys.executable, str(script), method, str(path)], check=True, timeout=WAIT)
    sound(path)
    assert rows(path, "SELECT count(*) FROM record WHERE kind = 'decision'") == [(300,)]


def test_a_child_forked_in_the_middle_of_a_write_is_refused_and_does_not_hang(path):
    script = """
        from lictor.errors import StoreError
        from lictor.store import database
        database.PAUSE = 0.05
        store = open_store(path)
        inside, leave = threading.Event(), threading.Event()
        def hold():
            with store._database.transaction(durable=True):
                inside.set()
                leave.wait(30)
        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(50)
            for use in (lambda: say(store, who="child"), lambda: store.task("T")):
                try: use()
                except StoreError as error: tell(error.problem.partition(": ")[2])
            sys.exit(0)
        tell(os.waitpid(child, 0)[1])
        leave.set()
        holder.join()
        say(store, who="parent")
        store.close()
    """
    refused = "this process was forked while its parent was writing"
    assert run(path, script) == [refused, refused, "0"]
    sound(path)


# -- several processes


def test_two_processes_and_two_opens_in_one_share_a_store(path):
    script = """
        one, two = open_store(path), open_store(path)
        for n in range(150):
            say(one, n=n)
            say(two, n=n)
        one.close()
        say(two, last=1)
        two.close()
    """
    both = [begin(path, script) for _ in range(2)]
    for process in both:
        end(process)
    sound(path)
    assert rows(path, "SELECT count(*) FROM record WHERE kind = 'decision'") == [(602,)]
    assert rows(path, "SELECT count(DISTINCT stream) FROM record") == [(4,)]


def test_reading_and_verifying_go_on_while_a_process_writes(path):
    script = """
        store = open_store(path)
        tell("ready")
        while not stop:
            say(store, n=1)
        store.close()
    """
    script = (
        "\nstop = []\nthreading.Thread(target=lambda: stop.append(sys.stdin.read())).start()\n"
        + (textwrap.dedent(script))
    )
    process = begin(path, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    reader = open_store(path, readonly=True)
    for _ in range(20):
        sound(path)
        assert reader.task("none") is None
    reader.close()
    end(process)
    sound(path)


# -- crashes


def test_killed_between_commit_and_body(path):
    run(path, "store = open_store(path); task(store); start(store, 'C1', spend=7); die()", code=-9)
    store = open_store(path)
    assert store.call("C1").state == "unknown"
    assert store.task("T").spent == 7
    assert store.unknown("acme", "c", "d-C1")
    store.close()
    sound(path)
    kinds = rows(path, "SELECT kind FROM record WHERE call = 'C1' ORDER BY rowid")
    assert kinds == [("decision",), ("recovery",)]


def test_killed_between_body_and_settle(path):
    script = """
        store = open_store(path)
        task(store)
        start(store, "C1")
        Path(sys.argv[2]).write_text("the body ran")
        die()
    """
    effect = path.parent.parent / "effect"
    run(path, script, effect, code=-9)
    assert effect.read_text() == "the body ran"
    said = run(path, "store = open_store(path); tell(start(store, 'C1').detail); store.close()")
    assert said == ["unknown"]
    sound(path)


def test_killed_after_settle(path):
    script = "store = open_store(path); task(store); start(store, 'C1'); settle(store, 'C1'); die()"
    run(path, script, code=-9)
    store = open_store(path)
    assert store.call("C1").state == "done"
    store.close()
    sound(path)


def test_killed_in_a_storm_loses_nothing_that_was_acknowledged(path):
    script = """
        store = open_store(path)
        task(store)
        lock = threading.Lock()
        def storm(name):
            for n in range(10_000):
                call = f"{os.getpid()}-{name}-{n}"
                head = start(store, call).head
                with lock: tell(json.dumps([call, head.stream, head.seq, head.hash]))
        for name in range(8): threading.Thread(target=storm, args=(name,)).start()
    """
    acknowledged: list[list] = []
    for _ in range(3):
        process = begin(path, script)
        assert process.stdout is not None
        for _ in range(200):
            acknowledged.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=WAIT)[0]
        acknowledged += [json.loads(line) for line in rest.splitlines() if line.endswith("]")]
    heads = [Head(stream, seq, digest) for _, stream, seq, digest in acknowledged]
    found = verify(path, expect=heads)
    assert found.ok, [str(problem) for problem in found.problems]
    store = open_store(path)
    for call, *_ in acknowledged:
        assert store.call(call).state == "unknown"
    store.close()
    sound(path)
    started = rows(path, "SELECT count(*) FROM call")[0][0]
    assert started >= len(acknowledged)
    assert rows(
        path, "SELECT count(*), count(DISTINCT call) FROM record WHERE kind='recovery'"
    ) == [(started, started)]
    assert rows(path, "SELECT calls FROM task") == [(started,)]


def test_racing_finders_settle_the_dead_once(path):
    script = """
        store = open_store(path)
        task(store)
        for n in range(40): start(store, f"C{n}")
        die()
    """
    run(path, script, code=-9)
    find = "tell('up'); sys.stdin.readline(); open_store(path).close()"
    finders = [begin(path, find) for _ in range(4)]
    for finder in finders:
        assert finder.stdout is not None
        assert finder.stdout.readline() == "up\n"
    for finder in finders:
        assert finder.stdin is not None
        finder.stdin.write("go\n")
        finder.stdin.flush()
    for finder in finders:
        end(finder)
    sound(path)
    assert rows(
        path, "SELECT count(*), count(DISTINCT call) FROM record WHERE kind='recovery'"
    ) == [(40, 40)]


def test_a_parent_killed_while_its_child_lives_does_not_keep_the_turn_to_write(path):
    script = """
        store = open_store(path)
        say(store, n=1)
        child = os.fork()
        if child == 0:
            os.close(1)
            sys.stdin.readline()
            os._exit(0)
        tell(child)
        with store._database.busy, store._database._turn():
            die()
    """
    process = begin(path, script)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait(WAIT)
    store = open_store(path)
    store.close()
    os.kill(child, signal.SIGKILL)
    process.communicate()
    sound(path)
