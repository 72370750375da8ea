"""What the store refuses of its files, and what it says (rules of files.py and database.py)."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from lictor.errors import StoreError
from lictor.store import database, files, open_store

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges in a child process")


def unprivileged(script: str, *arguments: object) -> str:
    """Runs a script as `nobody` and returns what it printed (the error, as a rule)."""
    code = """
import os, sys, tempfile
from pathlib import Path
from lictor.errors import StoreError
from lictor.store import open_store
with tempfile.TemporaryDirectory() as warm:  # nobody may not read where Python lies
    open_store(Path(warm) / "lictor.db").close()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
    code += textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_made_for_its_owner_only(store, path):
    for file in (path, *files.sidecars(path)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_uses_wal_and_flushes_each_durable_commit(act, store, monkeypatch):
    seen = []
    held = store._database._writing()
    real = held.execute
    monkeypatch.setattr(held, "execute", lambda text: (seen.append(text), real(text))[1])
    act.grow("a")
    act.do(durable=False)
    assert held.execute("PRAGMA journal_mode")[0] == "wal"
    begins = [n for n, text in enumerate(seen) if text.startswith("BEGIN")]
    assert [seen[n] for n in begins] == ["BEGIN IMMEDIATE"] * 2
    assert seen[begins[0] - 1] == "PRAGMA synchronous=FULL"
    assert seen[begins[1] - 1] == "PRAGMA synchronous=NORMAL"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse.s3fs", "ceph"]
)
def test_a_network_file_system_is_refused_before_anything_is_made(path, kind):
    with pytest.raises(StoreError, match=rf"network or host-shared file system \({kind}\)"):
        open_store(path, filesystem_type=lambda _: kind)
    assert not path.parent.exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "apfs", ""])
def test_a_local_file_system_is_taken(path, kind):
    open_store(path, filesystem_type=lambda _: kind).close()


def test_the_type_is_that_of_the_innermost_mount(monkeypatch, tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:5 / /srv rw - nfs4 host:/x rw\n"
        "3 2 0:6 / /srv/with\\040space rw shared:1 - xfs /dev/b rw\n"
        "4 1 0:7 / /home rw - ext3 /dev/c rw\n"
        "5 0 8:1 / / rw - ext4 /dev/a rw\n"
    )
    real = files.Path
    monkeypatch.setattr(
        files, "Path", lambda name: table if name == "/proc/self/mountinfo" else real(name)
    )
    assert files.filesystem_type(real("/srv/state/x")) == "nfs4"
    assert files.filesystem_type(real("/srv/with space/x")) == "xfs"
    assert files.filesystem_type(real("/srvother")) == "ext4"


def test_a_symlink_is_refused(path, tmp_path):
    path.parent.mkdir(mode=0o700)
    target = tmp_path / "elsewhere.db"
    open_store(target).close()
    path.symlink_to(target)
    with pytest.raises(StoreError, match="is a symlink"):
        open_store(path)
    path.unlink()
    path.symlink_to(tmp_path / "dangling.db")
    with pytest.raises(StoreError, match="is a symlink"):
        open_store(path)
    assert not (tmp_path / "dangling.db").exists()


@pytest.mark.parametrize("end", ["-wal", "-shm", ".lock"])
def test_a_symlink_beside_it_is_refused(path, tmp_path, end):
    open_store(path).close()
    beside = path.with_name(path.name + end)
    beside.unlink(missing_ok=True)
    beside.symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match="is a symlink"):
        open_store(path)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(path, mode):
    open_store(path).close()
    path.chmod(mode)
    with pytest.raises(StoreError, match="can be written by other accounts") as caught:
        open_store(path)
    assert f"chmod go-w {path}" in caught.value.mend


def test_a_directory_that_everybody_can_write_is_refused_unless_sticky(path):
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(StoreError, match="can be written by everybody"):
        open_store(path)
    path.parent.chmod(0o1777)
    open_store(path).close()


@needs_root
def test_a_file_of_another_account_is_refused(path):
    open_store(path).close()
    os.chown(path, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to uid 12345"):
        open_store(path)


@pytest.fixture
def shared():
    """A directory that every account can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_root
def test_a_directory_that_may_not_be_written_is_named(shared):
    said = unprivileged(
        """
        try: open_store(Path(sys.argv[1]))
        except StoreError as error: print(error)
        """,
        shared / "lictor.db",
    )
    assert "cannot be created: Permission denied" in said
    assert "make its directory writable" in said


@needs_root
def test_a_read_only_store_is_named_and_can_still_be_looked_at(acts, shared):
    path = shared / "lictor.db"
    store = open_store(path)
    acts(store).task()
    store.close()
    for file in shared.iterdir():
        file.chmod(0o444)
        os.chown(file, 65534, 65534)
    said = unprivileged(
        """
        try: open_store(Path(sys.argv[1]))
        except StoreError as error: print(error)
        looker = open_store(Path(sys.argv[1]), readonly=True)
        print(looker.task("T").state)
        looker.close()
        """,
        path,
    )
    assert "the store is read-only" in said
    assert "mend: make file and directory writable" in said
    assert said.endswith("running\n")


def test_a_file_that_is_no_database_is_left_as_it_is(path):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"something of yours\n" * 400)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="not a database"):
        open_store(path)
    assert path.read_bytes() == b"something of yours\n" * 400


def test_a_database_of_somebody_else_is_left_as_it_is(path):
    path.parent.mkdir(mode=0o700)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE meta (name TEXT)")
    other.commit()
    other.close()
    path.chmod(0o600)
    with pytest.raises(StoreError, match="not a Lictor store"):
        open_store(path)


def test_a_damaged_database_is_refused_when_opened(acts, path):
    store = open_store(path)
    for n in range(200):
        acts(store).say(n=n, text="x" * 200)
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xa5" * 4096 * 8)
    with pytest.raises(StoreError, match="database is damaged"):
        open_store(path)


def test_a_full_store_says_so_and_goes_on_when_there_is_room(acts, path, monkeypatch):
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, "PRAGMA max_page_count=40"))
    store = open_store(path)
    act = acts(store)
    with pytest.raises(StoreError, match="the store is full") as caught:
        for n in range(500):
            act.say(n=n, text="x" * 300)
    assert "free disk space" in caught.value.mend
    assert not store.healthy
    with pytest.raises(StoreError, match="the store is full"):
        store.commit(durable=False)
    reached = store.head
    monkeypatch.setattr(database, "PRAGMAS", database.PRAGMAS[:-1])
    healthy_again(store)
    assert act.say(after="room").head.seq == reached.seq + 1
    store.close()


def test_a_foreign_lock_is_waited_for_with_a_bound(act, store, path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT", 0.2)
    store._database.drop()  # the next connection takes the short wait
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program holds the store's database locked"):
        act.say(n=1)
    assert not store.healthy
    foreign.execute("ROLLBACK")
    foreign.close()
    healthy_again(store)
    act.say(n=2)


def test_the_turn_to_write_is_waited_for_with_a_bound(act, store, path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT", 0.2)
    with path.with_name(path.name + ".lock").open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"another process has held the store for 0\.2 s"):
            act.say(n=1)
    healthy_again(store)
    act.say(n=2)


def test_closing_takes_its_turn_because_the_last_connection_checkpoints(store, monkeypatch):
    events = []
    enter, leave, close = (
        files.WriterLock.__enter__,
        files.WriterLock.__exit__,
        database._Held.close,
    )
    monkeypatch.setattr(
        files.WriterLock, "__enter__", lambda lock: (events.append("turn"), enter(lock))[1]
    )
    monkeypatch.setattr(
        files.WriterLock, "__exit__", lambda lock, *e: (events.append("over"), leave(lock, *e))[1]
    )
    monkeypatch.setattr(
        database._Held, "close", lambda held: (events.append("close"), close(held))[1]
    )
    store.close()
    assert events.count("close") >= 1
    for place in (n for n, event in enumerate(events) if event == "close"):
        assert events[place - 1 : place + 2] == ["turn", "close", "over"]


def test_readers_do_not_wait_for_a_writer(act, store, path):
    act.task()
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    assert store.task("T").state == "running"
    foreign.execute("ROLLBACK")
    foreign.close()


def test_a_replaced_file_is_noticed_before_the_next_write(act, store, path, tmp_path):
    other = tmp_path / "other" / "lictor.db"
    open_store(other).close()
    act.say(n=1)
    os.replace(other, path)
    with pytest.raises(StoreError, match="was replaced while in use"):
        act.say(n=2)
    assert not store.healthy


def test_a_removed_file_is_not_made_again(act, store, path):
    path.unlink()
    with pytest.raises(StoreError, match="the store is gone"):
        act.say(n=1)
    assert not path.exists()


def test_a_store_put_back_from_a_backup_is_noticed(act, store, path, tmp_path):
    backup = sqlite3.connect(tmp_path / "backup.db")
    source = sqlite3.connect(path)
    source.backup(backup)
    source.close()
    act.say(n=1)
    with sqlite3.connect(path) as live:
        backup.backup(live)
    live.close()
    backup.close()
    with pytest.raises(StoreError, match="does not hold what this process wrote"):
        act.say(n=2)


def test_looking_only_creates_nothing_and_takes_no_commit(act, store, path, tmp_path):
    act.task()
    looker = open_store(path, readonly=True)
    assert looker.task("T").state == "running"
    assert not looker.healthy
    with pytest.raises(StoreError, match="opened to look only"):
        looker.commit(durable=True)
    looker.close()
    with pytest.raises(StoreError, match="there is no store"):
        open_store(tmp_path / "none.db", readonly=True)
    assert not (tmp_path / "none.db").exists()


def test_every_sqlite_error_is_told_with_its_mend(path):
    odd = sqlite3.OperationalError("strange")
    assert "strange" in files.explain(odd, path).problem
    same = StoreError("a", "b")
    assert files.explain(same, path) is same


def healthy_again(store):
    """Waits for the writer's own probe."""
    ready = store._writer._ready
    with ready:
        assert ready.wait_for(lambda: store.healthy, timeout=30)
