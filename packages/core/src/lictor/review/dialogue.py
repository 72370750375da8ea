"""The dialogue in which a person says what a tool can do.

Rules enforced here:

1. Nothing is decided but by a key: a proposal is shown with its reason and acts on nothing.
2. A key that would go below a hint of the server is refused in words.
3. A tool whose arguments cannot be checked can be blocked, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from lictor.approval.render import prose
from lictor.canonical import Json
from lictor.catalog import Change, Decided, Proposal
from lictor.catalog.propose import below_hint
from lictor.forms import visible
from lictor.model import Impact, Review, Tool
from lictor.review.shown import full_lines, named, review_lines, summary
from lictor.schema import SchemaRefused, compile

KEYS: Final[Mapping[str, Impact]] = {
    "r": Impact.READ,
    "w": Impact.WRITE,
    "d": Impact.DELETE,
    "s": Impact.SEND,
    "t": Impact.TRANSFER,
    "x": Impact.EXECUTE,
}
OUTSIDERS: Final = "outsiders"
UNTRUSTED: Final = "untrusted"
SENSITIVE: Final = "sensitive"
_PAGE: Final = 40
_IMPACTS: Final = (
    "[r]ead [w]rite [d]elete [s]end [t]ransfer e[x]ecute (several allowed, then Enter)"
)


class Screen(Protocol):
    """What the dialogue needs of a terminal; each method may raise when nobody answers."""

    def say(self, text: str) -> None:
        """Shows a line."""
        ...

    def key(self, prompt: str, allowed: str, *, many: bool = False) -> str:
        """One key out of `allowed`, or several until Enter; empty for Enter alone."""
        ...

    def line(self, prompt: str) -> str:
        """A short text; empty for Enter alone."""
        ...


class Quit(Exception):
    """The person has had enough; what was decided before stands."""


def ask_review(
    screen: Screen,
    tool: Tool,
    arguments: Mapping[str, Json] | None,
    proposal: Proposal,
    change: Change | None,
    reviewer: str,
    dev: bool,
    *,
    before: Review | None = None,
) -> Decided | None:
    """Asks what a tool can do.

    Args:
        screen: Where.
        tool: As it is about to run, or was met.
        arguments: Of the call at hand, if there is one.
        proposal: What it looks like (`propose`).
        change: What has changed since it was reviewed (`diff`), if it was.
        reviewer: Who is asked.
        dev: Asked while the program runs: the answer counts in development only, and Enter denies
            this call. Else Enter skips the tool, and `q` raises `Quit`.
        before: What was decided of it earlier; `k` keeps that.

    Returns:
        What was decided, or `None` for nothing.

    Raises:
        Quit: Only without `dev`.
    """
    dialogue = _Dialogue(screen, tool, proposal, reviewer, dev, _kept(tool, before))
    for line in review_lines(tool, arguments, change, before):
        screen.say(line)
    return dialogue.decide(full_lines(tool, arguments, change))


def _kept(tool: Tool, before: Review | None) -> Review | None:
    """What was decided before, if it fits the tool as it is now."""
    if before is None or not before.impact or before.blocked or below_hint(tool, before.impact):
        return None
    declared = _declared(tool)
    names = {*before.target, *filter(None, [before.amount]), *before.recordable}
    if declared is None or not names - set(before.inputs) <= declared:
        return None
    return before


def _declared(tool: Tool) -> frozenset[str] | None:
    try:
        return compile(tool.input_schema).arguments
    except SchemaRefused:
        return None


@dataclass(frozen=True, slots=True)
class _Dialogue:
    screen: Screen
    tool: Tool
    proposal: Proposal
    reviewer: str
    dev: bool
    before: Review | None

    def decide(self, whole: list[str]) -> Decided | None:
        allowed = "b" if _declared(self.tool) is None else "".join(KEYS) + "b"
        allowed += ("k" if self.before else "") + ("v" if whole else "")
        allowed += "" if self.dev else "nq"
        self._say_proposal(allowed)
        while True:
            keys = self.screen.key(self._prompt(allowed), allowed, many=True)
            if "q" in keys:
                raise Quit
            if "v" in keys:
                self._page(whole)
            elif "b" in keys:
                return self._decided(frozenset(), blocked=True)
            elif keys in ("", "n"):
                return None
            elif "k" in keys or "n" in keys:
                if self.before is not None and keys == "k":
                    return self._keep(self.before)
                self.screen.say("  that key stands alone")
            else:
                impact = frozenset(KEYS[key] for key in keys)
                if not below_hint(self.tool, impact):
                    return self._classified(impact)
                self.screen.say(
                    "  its server says that it is destructive, so it is no read; what else?"
                )

    def _page(self, lines: list[str]) -> None:
        for start in range(0, len(lines), _PAGE):
            for line in lines[start : start + _PAGE]:
                self.screen.say(line)
            left = len(lines) - start - _PAGE
            if left > 0 and self.screen.key(f"  {left:,} more lines; [q] back > ", "q"):
                return

    def _say_proposal(self, allowed: str) -> None:
        if "r" not in allowed:
            for line in prose(f"  {self.proposal.reason}; so it can only be blocked"):
                self.screen.say(line)
            return
        looks = named(self.proposal.impact)
        for line in prose(f"  looks like: {looks} ({self.proposal.reason}); you decide:"):
            self.screen.say(line)
        self.screen.say(f"  {_IMPACTS}")
        if self.before is not None:
            for line in prose(f"  [k]eep: {summary(self.before)}"):
                self.screen.say(line)

    def _prompt(self, allowed: str) -> str:
        more = "[v]iew all  " if "v" in allowed else ""
        if self.dev:
            return f"  {more}[b]lock  [Enter] deny once > "
        return f"  {more}[b]lock  [n]ext or [Enter] skip  [q]uit > "

    def _keep(self, before: Review) -> Decided:
        return self._decided(
            before.impact,
            target=before.target,
            amount=before.amount,
            recordable=before.recordable,
            produces=before.produces,
            sources=before.sources,
        )

    def _classified(self, impact: frozenset[Impact]) -> Decided:
        produces, sources = self._results(impact)
        if impact == {Impact.READ}:
            return self._decided(impact, produces=produces, sources=sources)
        if Impact.EXECUTE in impact:
            self.screen.say(
                "  note: what executes code stays denied in this process; only"
                ' isolation = "container" in catalog.toml changes that'
            )
        if self.tool.injected:
            names = visible(", ".join(self.tool.injected))
            for line in prose(
                f"  note: it is given {names}, and stays denied until catalog.toml names the"
                " paths that it uses: inputs = [...]"
            ):
                self.screen.say(line)
        target, amount = self._where(impact)
        return self._decided(
            impact,
            target=target,
            amount=amount,
            recordable=self._recordable(target, amount),
            produces=produces,
            sources=sources,
        )

    def _results(self, impact: frozenset[Impact]) -> tuple[frozenset[str], frozenset[str]]:
        """What its results bring into the session: a fetch or a program brings something too."""
        if impact.isdisjoint({Impact.READ, Impact.SEND, Impact.EXECUTE}):
            return frozenset(), frozenset()
        reads = not impact.isdisjoint({Impact.READ, Impact.EXECUTE})
        produces: set[str] = set()
        sources: frozenset[str] = frozenset()
        if self._yes(
            "  can outsiders write what this returns?", default=reads or self.proposal.outside
        ):
            produces.add(UNTRUSTED)
            sources = self._sources()
        if reads and self._yes("  is what it returns sensitive?", default=False):
            produces.add(SENSITIVE)
        return frozenset(produces), sources

    def _sources(self) -> frozenset[str]:
        while True:
            names = _split(self.screen.line(f"  who? [{OUTSIDERS}] ")) or (OUTSIDERS,)
            wrong = next((name for name in names if not SOURCE.fullmatch(name)), None)
            if wrong is None:
                return frozenset(names)
            self.screen.say(f"  {visible(wrong)}: lower-case letters, digits and dashes, please")

    def _where(self, impact: frozenset[Impact]) -> tuple[tuple[str, ...], str]:
        declared = _declared(self.tool) or frozenset()
        if not declared:
            return (), ""
        target = self._names("which arguments say where it goes", self.proposal.target, declared)
        if Impact.TRANSFER not in impact and not self.proposal.amount:
            return target, ""
        default = tuple(filter(None, [self.proposal.amount]))
        amount = self._names("which argument says how much", default, declared, one=True)
        return target, amount[0] if amount else ""

    def _names(
        self, question: str, default: tuple[str, ...], known: frozenset[str], *, one: bool = False
    ) -> tuple[str, ...]:
        shown = visible(", ".join(default)) or "none"
        while True:
            text = self.screen.line(f"  {question}? (- for none) [{shown}] ")
            if text == "-":
                return ()
            names = _split(text) or default
            if len(names) > 1 and one:
                self.screen.say("  just one, please")
            elif set(names) <= known:
                return names
            else:
                told = visible(", ".join(sorted(known)))
                for line in prose(f"  it has no such argument; it has {told}"):
                    self.screen.say(line)

    def _recordable(self, target: tuple[str, ...], amount: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys([*target, *filter(None, [amount])]))
        shown = visible(", ".join(names))
        if names and self._yes(f"  may {shown} stand in clear in the record?", default=True):
            return names
        return ()

    def _yes(self, question: str, *, default: bool) -> bool:
        key = self.screen.key(f"{question} {'[Y/n]' if default else '[y/N]'} ", "yn")
        return key == "y" if key else default

    def _decided(self, impact: frozenset[Impact], **parts: object) -> Decided:
        made: Callable[..., Decided] = Decided
        return made(
            impact,
            self.reviewer,
            datetime.now(UTC).isoformat(timespec="seconds"),
            reviewed_in="dev" if self.dev else "",
            **parts,
        )


SOURCE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, re.split(r"[,\s]+", text))))
