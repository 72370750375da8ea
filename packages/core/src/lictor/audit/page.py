"""A report as one page that needs nothing else: no script, no picture, no address.

Rules enforced here:

1. Everything that a tool, a model or a person has said is text: escaped, with what would not show
   written out. The page forbids itself scripts and loading.
2. A damaged store is said before anything else.
3. An answer that proves nobody's identity is said to be no evidence, where it stands.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, TextIO

from lictor.audit.report import Report
from lictor.audit.select import texts
from lictor.audit.twin import BLOCK, pieces
from lictor.audit.when import shown
from lictor.canonical import Json
from lictor.forms import visible

_STYLE: Final = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{border:1px solid #ccc;padding:.35rem .5rem;text-align:left;vertical-align:top}
th{background:#f2f2f2}td,pre,code{overflow-wrap:anywhere}
pre{white-space:pre-wrap;margin:.2rem 0;font-size:12px}
.bad{background:#b00020;color:#fff;padding:.7rem 1rem;font-weight:700}
.good{background:#e7f4e8;padding:.7rem 1rem}.deny{color:#b00020}.ask{color:#8a5a00}
.allow{color:#156b1b}.small{color:#555;font-size:12px}
@media print{body{margin:0}details{display:block}}
"""
_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEAD: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<title>Lictor: what was decided</title><style>{_STYLE}</style></head><body>
"""
_NO_EVIDENCE: Final = {
    "dev": "given in development: no evidence of an approval",
    "asserted": "nobody's identity was proved: no evidence of an approval",
}


def write_page(report: Report, hidden: Sequence[Mapping[str, Json]], out: TextIO) -> None:
    """Writes the page, with its JSON twin inside.

    Args:
        report: The report.
        hidden: What was not recorded.
        out: Where to.
    """
    out.write(_HEAD)
    for text in (*_intro(report), *_summary(report, hidden)):
        out.write(text)
    out.write("<h2>Decisions</h2>\n<table><tr><th>When (UTC)</th><th>Who, for whom</th>")
    out.write("<th>Call</th><th>Decision</th><th>Rules at that moment</th>")
    out.write("<th>People asked</th><th>Outcome</th></tr>\n")
    for row in report.rows():
        out.write(_row(row))
    out.write("</table>\n")
    out.write(BLOCK)
    for text in pieces(report, hidden):
        out.write(text.replace("<", "\\u003c"))
    out.write("</script></body></html>\n")


def told(value: object) -> str:
    """Text of unknown origin, as HTML."""
    return escape(visible(str(value)))


def _lines(text: object) -> str:
    """The same for text whose line ends are its author's own."""
    return "\n".join(told(line) for line in str(text).split("\n"))


# -- the top --------------------------------------------------------------------------------------


def _intro(report: Report) -> Iterator[str]:
    head, verification = report.head, _table(report.head.get("verification"))
    problems = texts(verification.get("problems"))
    if not report.ok:
        listed = "".join(f"<li>{told(each)}</li>" for each in problems[:200])
        yield (
            '<div class="bad">DAMAGED: the records are not whole, so this report may be wrong or '
            f"incomplete.<ul>{listed}</ul></div>\n"
        )
    yield f"<h1>What was decided: {told(head.get('project', ''))}</h1>\n"
    if report.ok:
        yield (
            f'<div class="good">{told(verification.get("records", 0))} records, all chains '
            "unbroken.</div>\n"
        )
    period, filters = _table(head.get("period")), _table(head.get("filters"))
    asked = ", ".join(f"{name} = {value}" for name, value in filters.items()) or "none"
    pairs = {
        "Period": f"{period.get('since')} to {period.get('until')} (before)",
        "Filters": asked,
        "Decisions": report.count,
        "Written": f"{head.get('written')} by lictor {head.get('version')}",
    }
    yield "<table>"
    for name, value in pairs.items():
        yield f"<tr><th>{told(name)}</th><td>{told(value)}</td></tr>"
    yield f"</table>\n<p>{told(head.get('statement', ''))}</p>\n"


def _summary(report: Report, hidden: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    yield "<h2>Not recorded</h2>\n"
    if hidden:
        yield "<table><tr><th>Tool</th><th>Arguments not in clear</th><th>Since</th></tr>\n"
        for each in hidden:
            yield _hidden(each)
        yield "</table>\n"
    else:
        yield "<p>Every argument of every tool was recorded in clear.</p>\n"
    yield "<h2>Gaps</h2>\n"
    if report.gaps:
        yield f"<ul>{''.join(f'<li>{told(gap)}</li>' for gap in report.gaps)}</ul>\n"
        if report.more:
            yield f"<p>And {report.more} more.</p>\n"
    else:
        yield "<p>None.</p>\n"
    yield "<h2>Heads</h2>\n<p>The newest record of each stream, to be compared with heads kept "
    yield "elsewhere:</p>\n<pre>"
    for stream in _list(_table(report.head.get("verification")).get("streams")):
        part = _table(stream)
        state = "closed" if part.get("closed") else "open"
        yield f"{told(part.get('head'))}  {told(part.get('records'))} records, {state}\n"
    yield "</pre>\n"


def _hidden(each: Mapping[str, Json]) -> str:
    closed = ", ".join(texts(each.get("not_recordable")))
    kind = "left out" if each.get("reads_only") else "as keyed digests"
    told_parts = [f"{told(closed)} ({kind})"] if closed else []
    for part in map(_table, _list(each.get("digests"))):
        times, first, last = part.get("times"), shown(part.get("first")), shown(part.get("last"))
        told_parts.append(
            f"{told(part.get('name'))}: digest only in {told(times)} decisions, "
            f"{told(first)} to {told(last)}"
        )
    since = each.get("since") or "not known: no review of it says when"
    parts = "<br>".join(told_parts)
    return f"<tr><td>{told(each.get('tool'))}</td><td>{parts}</td><td>{told(since)}</td></tr>\n"


# -- one decision ---------------------------------------------------------------------------------


def _row(row: Mapping[str, Any]) -> str:
    body = _table(row["decision"]["body"])
    verdict = str(body.get("verdict", ""))
    style = verdict if verdict in ("allow", "deny", "ask") else "small"
    chain = " → ".join(texts(body.get("chain"))) or "no task"
    cells = [
        f"{told(shown(body.get('at')))}<div class='small'>{told(body.get('id', ''))}</div>",
        f"{told(chain)}<div class='small'>{told(body.get('assurance', ''))}; task "
        f"{told(body.get('template') or body.get('task') or 'none')}</div>",
        f"<b>{told(body.get('tool', ''))}</b> {told(', '.join(texts(body.get('impact'))))}"
        f"{_arguments(body.get('arguments'))}",
        f"<b class='{style}'>{told(verdict)}</b> {told(body.get('code', ''))}: "
        f"{told(body.get('enforcement', ''))}<div>{_lines(body.get('detail', ''))}</div>",
        "".join(map(_rule, row.get("rules", ()))),
        "".join((*map(_ask, row.get("asks", ())), *map(_answer, row.get("answers", ())))),
        "".join(map(_outcome, row.get("outcomes", ()))),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _arguments(value: Json) -> str:
    if not isinstance(value, dict):
        return "<div class='small'>arguments were not taken</div>"
    told_parts = [f"{told(name)} = {_argument(each)}" for name, each in value.items()]
    return f"<pre>{chr(10).join(told_parts)}</pre>" if told_parts else ""


def _argument(value: Json) -> str:
    if isinstance(value, dict) and set(value) == {"digest"}:
        return f"<span class='small'>not recorded ({told(value['digest'])})</span>"
    return told(json.dumps(value, ensure_ascii=False))


def _rule(rule: Mapping[str, str]) -> str:
    name = f"<b>{told(rule.get('id', ''))}</b> {told(rule.get('where', ''))}"
    if not rule.get("text"):
        return f"<div>{name}<div class='small'>its text is not in the journal</div></div>"
    return f"<details><summary>{name}</summary><pre>{_lines(rule['text'])}</pre></details>"


def _ask(each: Mapping[str, Any]) -> str:
    body = _table(each.get("body"))
    kinds, user = ", ".join(texts(body.get("kinds"))), body.get("user", "")
    why = "; ".join(texts(body.get("why")))
    return (
        f"<div>asked {told(shown(body.get('at')))}: {told(kinds)} of {told(user)}"
        f"<div class='small'>{told(why)}</div>{_arguments(body.get('arguments'))}</div>"
    )


def _answer(each: Mapping[str, Any]) -> str:
    body = _table(each.get("body"))
    assurance = str(body.get("assurance", ""))
    if body.get("verdict") not in ("granted", "rejected"):
        note = "nobody answered"
    elif body.get("evidence") is True:
        note = "identity proved"
    else:
        note = _NO_EVIDENCE.get(assurance, "no evidence of an approval")
    saw = f"; text shown: sha256 {body['shown']}" if body.get("shown") else ""
    return (
        f"<div><b>{told(body.get('verdict', ''))}</b> by {told(body.get('by') or 'nobody')} "
        f"{told(shown(body.get('at')))} in {told(body.get('channel') or 'no channel')} "
        f"({told(assurance)}: {told(note)})<div class='small'>after "
        f"{told(body.get('took_ms', '?'))} ms{told(saw)}</div></div>"
    )


def _outcome(each: Mapping[str, Any]) -> str:
    body = _table(each.get("body"))
    kind = "" if body.get("kind") == "outcome" else f" ({body.get('kind')})"
    return (
        f"<div>{told(body.get('verdict', ''))} {told(body.get('code', ''))}{told(kind)} "
        f"<span class='small'>{told(shown(body.get('at')))}</span></div>"
    )


def _table(value: object) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else ()
