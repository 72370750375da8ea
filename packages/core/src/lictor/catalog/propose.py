"""What a tool looks like it does: words for the person who decides, never a decision.

Rules enforced here:

1. A proposal only raises: a hint of the server, a word of the name or an argument adds an impact,
   and nothing takes one away.
2. `read` is proposed only where something says so, and never for a tool with an argument that is
   a URL, a query, code, a place to write to, or takes anything.
3. Whatever cannot be judged (a schema that cannot be checked, a name in other letters) is no read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lictor.catalog.arguments import Argument, arguments_of, shouted, words_of
from lictor.forms import visible
from lictor.model import Impact, Tool
from lictor.schema import SchemaRefused, compile


@dataclass(frozen=True, slots=True)
class Proposal:
    """A guess about one tool. It decides nothing.

    Attributes:
        impact: What it looks like it does.
        reason: Why, in words fit for a terminal.
        target: Arguments that look like where the effect goes.
        amount: The argument that looks like how much.
        recordable: What an auditor will ask for: target and amount.
        outside: What it returns looks like it comes from outside.
    """

    impact: frozenset[Impact]
    reason: str
    target: tuple[str, ...] = ()
    amount: str = ""
    recordable: tuple[str, ...] = ()
    outside: bool = False


def propose(tool: Tool) -> Proposal:
    """Guesses from name, description, arguments and hints."""
    arguments = arguments_of(tool.definition()["input_schema"])
    try:
        declared = compile(tool.input_schema).arguments
        refused = ""
    except SchemaRefused as error:
        declared, refused = frozenset(), str(error)
    target = [each for each in arguments if each.words & _TARGETS]
    amounts = [each for each in arguments if each.words & _AMOUNTS]
    found = dict.fromkeys(_evidence(tool, arguments, amounts, refused))
    impact = _strongest({impact for impact, _ in found})
    reason = "; ".join([why for each, why in found if each in impact][:3])
    if not impact:
        impact, reason = _quiet(tool)
    named = tuple(dict.fromkeys(e.top for e in target if e.top in declared and e not in amounts))
    amount = next((each.top for each in amounts if each.top in declared), "")
    effect = impact != {Impact.READ}
    return Proposal(
        impact=impact,
        reason=reason,
        target=named if effect else (),
        amount=amount if effect else "",
        recordable=(*named, *filter(None, [amount])) if effect else (),
        outside=_outside(tool, arguments),
    )


def below_hint(tool: Tool, impact: frozenset[Impact]) -> bool:
    """Whether somebody would enter a tool as read that its server calls destructive."""
    hints = tool.annotations
    destructive = hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True
    return destructive and impact == {Impact.READ}


def _strongest(found: set[Impact]) -> frozenset[Impact]:
    """Code can do everything else, and every effect writes."""
    if Impact.EXECUTE in found:
        return frozenset({Impact.EXECUTE})
    if found - {Impact.WRITE}:
        found = found - {Impact.WRITE}
    if Impact.TRANSFER in found:
        found = found - {Impact.SEND}
    return frozenset(found)


def _quiet(tool: Tool) -> tuple[frozenset[Impact], str]:
    """No effect shows; a read must still be told as one."""
    words = [*words_of(tool.key.name), *_sentence(tool.description)[:1]]
    for word in words:
        if word in _READS:
            return frozenset({Impact.READ}), f'"{word}", and nothing that shows an effect'
    if tool.annotations.get("readOnlyHint") is True:
        return frozenset({Impact.READ}), "its server says that it only reads"
    return frozenset({Impact.WRITE}), "nothing says that it only reads"


def _evidence(
    tool: Tool, arguments: list[Argument], amounts: list[Argument], refused: str
) -> Iterator[tuple[Impact, str]]:
    if refused:
        yield Impact.EXECUTE, f"its arguments cannot be checked: {visible(refused)}"
    receivers = [each for each in arguments if each.words & _RECIPIENTS]
    if receivers and amounts:
        yield Impact.TRANSFER, _quoted("arguments", [receivers[0], amounts[0]])
    yield from _by_name(tool)
    yield from _by_description(tool)
    reads = any(word in _READS for word in words_of(tool.key.name))
    for each in arguments:
        yield from _by_argument(each, reads, bool(amounts))
    places = [each for each in arguments if each.words & _PLACES]
    contents = [each for each in arguments if each.words & _CONTENTS]
    if places and contents:
        yield Impact.WRITE, _quoted("arguments", [places[0], contents[0]])
    yield from _by_hint(tool)


def _by_argument(each: Argument, reads: bool, pays: bool) -> Iterator[tuple[Impact, str]]:
    told = _quoted("argument", [each])
    if each.words & _CODE:
        yield Impact.EXECUTE, f"{told} may hold code"
    if each.words & _QUERIES:
        yield Impact.WRITE, f"{told} may hold a query that changes something"
    if each.words & _ADDRESSES:
        yield Impact.SEND, f"{told} may name an address outside"
    if each.words & _RECIPIENTS and not pays:
        yield Impact.SEND, told
    if each.words & _DESTINATIONS or (each.words & _PLACES and not reads):
        yield Impact.WRITE, f"{told} may be written to"
    if not each.typed:
        yield Impact.WRITE, f"{told} takes anything"
    if not each.name.isascii():
        yield Impact.WRITE, f"{told} is not written in plain letters"


def _by_name(tool: Tool) -> Iterator[tuple[Impact, str]]:
    words = words_of(tool.key.name)
    for impact, verbs in _VERBS.items():
        for n, word in enumerate(words):
            if word in verbs or (n == 0 and word in _LEADING.get(impact, ())):
                yield impact, f'"{word}" in its name'
                break
    if not tool.key.name.isascii():
        yield Impact.WRITE, "its name is not written in plain letters"


def _by_description(tool: Tool) -> Iterator[tuple[Impact, str]]:
    text = shouted(tool.description)
    verbs = [*_sentence(text)[:1], *(found[1] for found in _AFTER.finditer(text))]
    known = {form for verb in verbs for form in _forms(verb)}
    for impact, words in _VERBS.items():
        for word in sorted(known & words):
            yield impact, f'"{word}" in its description'
            break


def _forms(verb: str) -> set[str]:
    """`sends` is `send`, `modifies` is `modify`, `publishes` is `publish`."""
    found = {verb, verb.removesuffix("s"), verb.removesuffix("es")}
    return found | ({verb[:-3] + "y"} if verb.endswith("ies") else set())


def _sentence(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return [form for word in words[:1] for form in sorted(_forms(word))]


def _by_hint(tool: Tool) -> Iterator[tuple[Impact, str]]:
    hints = tool.annotations
    if hints.get("destructiveHint") not in (None, False):
        yield Impact.DELETE, "its server says that it is destructive"
    if _is_open(tool):
        yield Impact.SEND, "its server says that it reaches the outside"
    if hints.get("readOnlyHint") not in (None, True):
        yield Impact.WRITE, "its server does not call it read-only"


def _outside(tool: Tool, arguments: list[Argument]) -> bool:
    named = any(each.words & _ADDRESSES for each in arguments)
    return named or _is_open(tool) or not _WEB.isdisjoint(words_of(tool.key.name))


def _is_open(tool: Tool) -> bool:
    return tool.annotations.get("openWorldHint") not in (None, False)


def _quoted(word: str, arguments: Iterable[Argument]) -> str:
    return f"{word} {', '.join(dict.fromkeys(_short(each.name) for each in arguments))}"


def _short(name: str) -> str:
    return f'"{visible(name if len(name) <= 60 else name[:57] + "...")}"'


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODE: Final = _words(
    "sql code codes command commands cmd expression expr script shell bash python javascript js "
    "program formula eval cypher graphql sparql statement macro lambda jinja"
)
_QUERIES: Final = _words("query queries q where")
_ADDRESSES: Final = _words(
    "url urls uri uris iri link links href endpoint webhook callback host hostname domain website "
    "site http https"
)
_WEB: Final = _words("web http fetch browse crawl scrape download")
_DESTINATIONS: Final = _words("destination dest output out outfile outpath")
_PLACES: Final = _words("path paths file files filename filepath folder directory dir")
_CONTENTS: Final = _words("content contents body data payload text bytes")
_RECIPIENTS: Final = _words(
    "to recipient recipients receiver cc bcc payee beneficiary iban phone mailto"
)
_AMOUNTS: Final = _words("amount sum price cents money fee")
_TARGETS: Final = (
    _RECIPIENTS
    | _PLACES
    | _ADDRESSES
    | _DESTINATIONS
    | _words(
        "account email address channel chat user customer repo repository bucket table key id "
        "database server"
    )
)
_VERBS: Final[Mapping[Impact, frozenset[str]]] = {
    Impact.EXECUTE: _words(
        "execute exec run eval evaluate shell bash terminal python repl interpreter script deploy "
        "invoke launch spawn sql"
    ),
    Impact.TRANSFER: _words(
        "transfer pay payment refund withdraw deposit buy purchase checkout invest trade sell "
        "grant wire remit money donate"
    ),
    Impact.DELETE: _words(
        "delete remove purge drop destroy erase wipe truncate clear unlink trash prune uninstall "
        "rm del revoke cancel kill terminate reset"
    ),
    Impact.SEND: _words(
        "send publish upload notify reply forward fetch browse crawl scrape download broadcast "
        "invite submit dispatch tweet sms webhook export"
    ),
    Impact.WRITE: _words(
        "write overwrite create update set put add insert edit modify save append upsert patch "
        "rename move copy schedule reserve change assign configure register subscribe unsubscribe "
        "enable disable start stop restart replace merge commit push apply adjust store sync "
        "import approve close lock unlock"
    ),
}
_LEADING: Final[Mapping[Impact, frozenset[str]]] = {
    Impact.TRANSFER: _words("charge order share"),
    Impact.SEND: _words("mail email post message web http request call ping"),
    Impact.WRITE: _words("book record mark tag label log open sign accept"),
}
"""Words that are verbs only where a name begins with them."""
_READS: Final = _words(
    "get list read search find look lookup show view count describe check retrieve return select "
    "summarize calculate compute inspect compare tell"
)
_AFTER: Final = re.compile(
    r"(?:[.;:,\n]\s*|\b(?:and|or|then|also|can|will|may|must|to|it|this|that|which|tool|function"
    r"|method|command|server|agent|\w+ly)\s+)(?=([a-z]+))"
)
