"""A page that does not say what happens is found out; what a terminal shows is kept by rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from follow import Reader, changed, matches
from record import draw, seen
from screen import Screen

Follow = Callable[[str], None]


@pytest.fixture
def follow(tmp_path: Path) -> Follow:
    def follow(text: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        with Reader(tmp_path, Path(sys.executable).parent) as reader:
            reader.follow(page)

    return follow


def test_two_terminals_keys_and_files(follow: Follow) -> None:
    follow("""\
```python ask.py
print("you said", input("what? "))
```
```console second
$ python -c "input('go? '); print(open('said').read())"
```
```console
$ python ask.py
what? ‹yes› ‹Enter›
you said yes
```
```diff ask.py
-print("you said", input("what? "))
+print(open("said", "w").write("new"))
```
```console
$ python ask.py
3
```
```console second
go? ‹Enter›
new
```
""")


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        ("$ echo one; echo two\none\n", "shows more: 'two'"),
        ("$ echo one; echo two\ntwo\n", "'one' instead of 'two'"),
        ("$ echo one\none\ntwo\n", "'two' did not come"),
        ("$ false\n", "ends with 1, not with 0"),
        ("$ true  # exit 1\n", "ends with 0, not with 1"),
        ("$ read -p 'go? '\nwhat? ‹y› ‹Enter›\n", "'what? ' did not come"),
    ],
)
def test_a_page_that_is_not_true_fails_where_it_is_not(
    follow: Follow, shown: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("follow.SECONDS", 2.0)

    with pytest.raises(AssertionError, match=r"page\.md:\d+: .*") as caught:
        follow(f"```console\n{shown}```\n")

    assert problem in str(caught.value)


def test_dots_stand_for_anything_within_a_line_and_for_lines_on_their_own(follow: Follow) -> None:
    assert matches("a … c", "a b c")
    assert not matches("a … c", "a b c d")
    follow("```console\n$ printf 'a\\nb\\nc\\n'\n…\nc\n```\n")


def test_a_diff_says_exactly_one_place() -> None:
    assert changed("a\nb\nc\n", " a\n-b\n+B\n") == "a\nB\nc\n"
    with pytest.raises(AssertionError, match="more than once"):
        changed("a\na\n", "-a\n+b\n")


def rows(*chunks: bytes) -> Screen:
    screen = Screen()
    for at, chunk in enumerate(chunks):
        screen.feed(chunk, float(at))
    return screen


def test_a_row_that_is_written_anew_holds_what_is_written_last() -> None:
    assert rows(b"state", b"\r\x1b[Jline\r\nstate").lines() == ["line", "state"]
    assert rows(b"yes\b\b\bno").lines() == ["nos"]
    assert rows(b"\xe2\x80", b"\xa6\x1b[3", b"1mred").lines() == ["…red"]


def test_a_picture_draws_each_state_of_a_row_for_its_time() -> None:
    screen = rows(b"one", b"\r\x1b[J\x1b[31mtwo\x1b[0m\n")

    states, seconds = seen(screen, range(2), [])
    picture = draw("t", states, seconds)

    assert [(state.since, state.until) for state in states] == [(0.1, 1.1), (1.1, None)]
    assert '<g class="t0"><text x="14" y="53" textLength="23.4">one</text></g>' in picture
    assert 'class="red">two</text>' in picture
    assert ".t0{visibility:hidden;" in picture
    assert ".t1{visibility:visible;" in picture
