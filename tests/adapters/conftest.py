"""A gate over real tools and a real store, and what it has written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lictor.testing import UnsafeAllowAll
from lictor_langchain.testing import Scene


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes scenes; the policy allows everything unless told otherwise."""
    with ExitStack() as stack:

        def make(*tools: Any, **options: Any) -> Scene:
            options.setdefault("policy", UnsafeAllowAll())
            if options["policy"] is None:
                del options["policy"]
            made = Scene(tmp_path, *tools, **options)
            stack.callback(made.gate.close)
            return made

        yield make
