"""`lictor demo mcp`: real servers, spoken to directly and through `lictor gateway`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lictor.demo import decisions, verified
from lictor.place import place
from lictor_mcp.demo import files, lies
from lictor_mcp.demo.parts import Missing, files_server
from lictor_mcp.demo.said import Said
from lictor_mcp.demo.scene import Scene

Say: TypeAlias = Callable[[str, str], None]
"""Shows one line in a style."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the demo has shown.

    Attributes:
        claims: What it claims → whether that was so, in this run.
        left_out: What could not be shown here, and how to mend it; empty if nothing.
        decisions: One row a call, from the records.
        audit: What `audit verify` found.
        project: The gateway's folder.
    """

    claims: dict[str, bool]
    left_out: str
    decisions: list[dict[str, Any]]
    audit: dict[str, Any]
    project: Path

    def stopped(self) -> bool:
        """Whether all that was shown was as claimed."""
        return bool(self.claims) and all(self.claims.values())

    def write(self, path: Path) -> None:
        """Writes the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "claims": self.claims,
            "left_out": self.left_out,
            "decisions": self.decisions,
            "audit": self.audit,
            "stopped": self.stopped(),
        }
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(say: Say, parts: Path, folder: Path | None = None) -> Report:
    """Shows what a server can do to an agent, and what it can do behind the gateway.

    Args:
        say: Shows one line.
        parts: Folder that keeps what is fetched.
        folder: Where to keep the files and the project; a temporary folder if left out.
    """
    folder = (folder or Path(tempfile.mkdtemp(prefix="lictor-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    said, left_out = Said(say), ""
    server: list[str] = []
    try:
        server = files_server(parts.resolve())
    except Missing as missing:
        left_out = str(missing)
    here = Scene(folder, server)
    if server:
        said.attempt("the server of files answers", lambda: files.show(said, here))
    said.attempt("the server that lies answers", lambda: lies.show(said, here))
    store = place(here.toml).store
    kept = store.is_file()  # no gateway, no record
    audit = verified(store) if kept else {"ok": False, "records": 0, "heads": []}
    said.claim("the record is intact", audit["ok"] is True)
    rows = decisions(store) if kept else []
    return Report(said.claims, left_out, rows, audit, here.project)
