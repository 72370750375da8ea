"""A pytest fixture that fails where a program's tools are not what was reviewed.

In `conftest.py`: `from lictor.testing.drift import lictor_drift`; then a test of one line:
`def test_tools(lictor_drift): lictor_drift(TOOLS)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from lictor.gather import definitions, drifted
from lictor.place import place

LictorDrift: TypeAlias = Callable[..., None]


@pytest.fixture
def lictor_drift(request: pytest.FixtureRequest) -> LictorDrift:
    """Compares tools with the catalog; call it with a list, or a dict of server → list.

    Its `project` is a `lictor.toml` or a folder, relative to the root of the tests, which it is
    itself if left out.
    """

    def compare(tools: object, project: str | Path = "") -> None:
        here = place(request.config.rootpath / project)
        catalog = here.reviewed(production=here.settings.production)
        found = drifted(catalog, definitions(tools))
        if found:
            pytest.fail(str(found), pytrace=False)

    return compare
