"""The catalog as the gate uses it: which tools a person has reviewed, and as what.

Rules enforced here:

1. A tool that no person has classified does not run; neither does one whose definition or code is
   not, byte for byte, the one that was reviewed, or under another name.
2. The human file and the lock must agree: an edited lock, a missing definition, a duplicate or an
   argument that the definition does not have does not load.
3. A server's hint may raise what a reviewer must say, never lower it: a tool that calls itself
   destructive cannot be entered as `read`.
4. Under the production profile an answer given in development counts as no review.
5. A tool whose schema cannot be checked (`schema`) cannot be classified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from lictor.canonical import Json, digest
from lictor.model import Review, Tool, ToolKey
from lictor.ports import Known


class Catalog:
    """Reviewed tools. Immutable; load another one to change it.

    Attributes:
        digest: Of all reviews and pins.
        names: Every known tool as `server/name`.
        locked: Definitions as they were last locked, reviewed or not.
    """

    def __init__(
        self,
        entries: Iterable[Known] = (),
        *,
        blocked: Iterable[ToolKey] = (),
        locked: Mapping[ToolKey, Tool] = MappingProxyType({}),
        production: bool = False,
    ) -> None:
        """Builds a catalog from reviews.

        Args:
            entries: Reviews with their definitions; those without an impact count as unreviewed.
            blocked: Tools that are blocked although they were never classified.
            locked: Definitions of the lock.
            production: Take no answers that were given in development.
        """
        self._known = {
            known.review.key: known
            for known in entries
            if known.review.impact
            and known.review.pin == known.tool.pin
            and not (production and known.review.reviewed_in)
        }
        self._production = production
        self._blocked = frozenset(blocked) | {
            key for key, known in self._known.items() if known.review.blocked
        }
        self.locked = MappingProxyType(dict(locked))
        self.names = frozenset(map(str, self._known))
        self.digest = digest(
            {str(key): _summary(known.review) for key, known in self._known.items()}
        )

    @classmethod
    def load(cls, toml: Path, lock: Path | None, *, production: bool = False) -> Catalog:
        """Reads `catalog.toml` and `catalog.lock`.

        Args:
            toml: What a person decided.
            lock: The full definitions; `None` if nothing was locked yet.
            production: Take no answers that were given in development.

        Raises:
            ConfigError: Something is wrong; says what, where and how to mend it.
        """
        from lictor.catalog import entries

        locked = entries.read_lock(lock) if lock is not None else {}
        reviews = entries.read(toml)
        known = [
            entries.matched(place, review, locked.get(review.key))
            for place, review in reviews
            if review.impact
        ]
        return cls(
            known,
            blocked=(review.key for _, review in reviews if review.blocked),
            locked=locked,
            production=production,
        )

    def with_known(self, known: Known) -> Catalog:
        """Another catalog in which this review stands, instead of what was said of the tool before.

        Raises:
            ValueError: The review has no impact and blocks nothing, or is not of this definition.
        """
        review = known.review
        if review.blocked:
            return self.with_blocked(review.key, known.tool)
        if not review.impact or review.pin != known.tool.pin or review.key != known.tool.key:
            raise ValueError(f"{review.key} is not classified as the tool it is")
        return self._but(review.key, (known,), self._blocked - {review.key}, known.tool)

    def with_blocked(self, key: ToolKey, tool: Tool | None = None) -> Catalog:
        """Another catalog in which this tool is blocked.

        Args:
            key: The tool.
            tool: Its definition, as the person saw it.
        """
        return self._but(key, (), self._blocked | {key}, tool)

    def _but(
        self,
        key: ToolKey,
        entries: tuple[Known, ...],
        blocked: Iterable[ToolKey],
        tool: Tool | None,
    ) -> Catalog:
        others = (known for known in self._known.values() if known.review.key != key)
        return Catalog(
            (*others, *entries),
            blocked=blocked,
            locked=self.locked if tool is None else {**self.locked, key: tool},
            production=self._production,
        )

    def known(self, key: ToolKey) -> Known | None:
        """The review and pinned definition of a tool, or `None` if nobody has reviewed it."""
        return self._known.get(key)

    def known_tools(self) -> tuple[Known, ...]:
        """All reviewed tools, in the order of their keys."""
        return tuple(self._known[key] for key in sorted(self._known))

    def check(self, tool: Tool) -> str | None:
        """Why this very tool may not run.

        Returns:
            `tool_blocked`, `tool_unreviewed`, `tool_changed`, or `None` if nothing is wrong.
        """
        if tool.key in self._blocked:
            return "tool_blocked"
        known = self._known.get(tool.key)
        if known is None:
            return "tool_unreviewed"
        return None if tool.pin == known.tool.pin else "tool_changed"


def _summary(review: Review) -> Json:
    return [
        review.pin,
        [*sorted(review.impact)],
        list(review.target),
        review.amount,
        [*sorted(review.recordable)],
        [*sorted(review.produces)],
        [*sorted(review.sources)],
        dict(review.formats),
        list(review.inputs),
        list(review.credentials),
        review.isolation,
        list(review.roots),
        review.tenant,
        review.blocked,
        review.reviewed_in,
    ]
