"""Who is alive, and what becomes of the calls of the dead (rules of stream.py)."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from lictor.store import open_store, stream, writer

NOW = 1_000_000_000_000_000


def row(**changes):
    here = stream.Process.here()
    values = {
        "id": "S",
        "host": here.host,
        "boot": here.boot,
        "pid": here.pid,
        "started": here.started,
        "beat": NOW,
        "closed": 0,
    } | changes
    return tuple(values.values())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"beat": 0}, ""),
        ({"closed": NOW}, "closed"),
        ({"started": 1}, "exited"),
        ({"pid": 2**22 + 1}, "exited"),
        ({"boot": "before"}, "rebooted"),
        ({"host": "elsewhere"}, ""),
        ({"host": "elsewhere", "beat": NOW - 29_000_000}, ""),
        ({"host": "elsewhere", "beat": NOW - 31_000_000}, "silent"),
    ],
    ids=str,
)
def test_death_is_proved_on_the_same_host_and_presumed_on_another(changes, why):
    assert stream.death(row(**changes), NOW) == why


def test_a_process_is_known_by_pid_and_start_time():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = stream.process_start(child.pid)
    assert started is not None
    assert started >= stream.process_start(os.getpid())
    child.kill()
    child.wait()
    child.stdin.close()
    assert stream.process_start(child.pid) is None


def test_a_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout.read() == b""
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert stream.process_start(child.pid) is None
    child.wait()
    child.stdout.close()


def declare_dead(path, name, **changes):
    db = sqlite3.connect(path)
    with db:
        for column, value in changes.items():
            db.execute(f"UPDATE stream SET {column} = ? WHERE id = ?", (value, name))
    db.close()


def recoveries(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT stream, call, verdict, body FROM record WHERE kind = 'recovery'")
    found = [(name, call, verdict, json.loads(body)) for name, call, verdict, body in rows]
    db.close()
    return found


def test_the_started_calls_of_the_dead_become_unknown_and_stay_paid(act, store, path):
    act.task()
    act.start("C1", spend=5)
    act.start("C2", spend=5)
    act.settle("C2", "done")
    declare_dead(path, store.head.stream, pid=2**22 + 1)
    finder = open_store(path)
    assert (finder.call("C1").state, finder.call("C2").state) == ("unknown", "done")
    assert (finder.task("T").calls, finder.task("T").spent) == (2, 10)
    assert finder.unknown("acme", "c", "digest-C1")
    [(where, call, verdict, body)] = recoveries(path)
    assert (where, call, verdict) == (finder.head.stream, "C1", "unknown")
    assert (body["of"], body["why"], body["decision"]) == (store.head.stream, "exited", "D-C1")
    finder.close()


def test_the_calls_of_a_closed_stream_are_settled_too(acts, path):
    first = open_store(path)
    acts(first).task()
    acts(first).start("C1")
    first.close()
    second = open_store(path)
    assert second.call("C1").state == "unknown"
    assert recoveries(path)[0][3]["why"] == "closed"
    second.close()


def test_the_calls_of_the_living_are_left_alone(act, store, path):
    act.task()
    act.start("C1")
    other = open_store(path)
    assert other.call("C1").state == "started"
    assert act.settle("C1", "done").moved is None
    assert other.call("C1").state == "done"
    other.close()


def test_a_paused_process_that_comes_back_finds_its_settle_late(act, store, path):
    act.task()
    act.start("C1", spend=5)
    declare_dead(path, store.head.stream, host="elsewhere", beat=0)
    finder = open_store(path)
    assert recoveries(path)[0][3]["why"] == "silent"
    act.settle("C1", "done")
    assert finder.call("C1").state == "unknown"
    db = sqlite3.connect(path)
    kinds = db.execute("SELECT kind FROM record WHERE call = 'C1' ORDER BY rowid").fetchall()
    db.close()
    assert kinds == [("decision",), ("recovery",), ("late",)]
    finder.close()


def test_somebody_who_runs_on_finds_the_dead_at_his_heartbeat(acts, path, monkeypatch):
    dead = open_store(path)
    acts(dead).task()
    acts(dead).start("C1")
    monkeypatch.setattr(writer, "HEARTBEAT", 0.01)
    found = threading.Event()
    real = writer.recover

    def recover(sql, chain, now):
        calls = real(sql, chain, now)
        if calls:
            found.set()
        return calls

    monkeypatch.setattr(writer, "recover", recover)
    finder = open_store(path)
    assert finder.call("C1").state == "started"
    declare_dead(path, dead.head.stream, pid=2**22 + 1)
    assert found.wait(20)
    finder.close()
    dead.close()
    assert [call for _, call, _, _ in recoveries(path)] == ["C1"]


def test_several_finders_recover_each_call_once(acts, path):
    dead = open_store(path)
    acts(dead).task()
    for n in range(30):
        acts(dead).start(f"C{n}")
    declare_dead(path, dead.head.stream, pid=2**22 + 1)
    gate = threading.Barrier(6)
    finders = []

    def find():
        gate.wait()
        finders.append(open_store(path))

    threads = [threading.Thread(target=find) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(call for _, call, _, _ in recoveries(path)) == sorted(f"C{n}" for n in range(30))
    for finder in (*finders, dead):
        finder.close()
