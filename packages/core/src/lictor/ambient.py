"""Secrets that a program of this account could reach without asking anybody.

Rules enforced here:

1. Names are told, never values, and no file is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_NAMES: Final = re.compile(
    r"(?:.*_)?(?:API_?KEY|SECRET|SECRET_?(?:ACCESS_)?KEY|(?:ACCESS|AUTH|SESSION|API)?_?TOKEN|PASSWORD"
    r"|PASSWD|PRIVATE_KEY|CREDENTIALS?|CONNECTION_STRING)|KUBECONFIG|SSH_AUTH_SOCK|DATABASE_URL"
)
_FILES: Final = (
    ".aws/credentials",
    ".azure/msal_token_cache.json",
    ".config/gcloud/application_default_credentials.json",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".git-credentials",
    ".kube/config",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".ssh/id_ecdsa",
    ".ssh/id_ed25519",
    ".ssh/id_rsa",
)
_SOCKETS: Final = ("/var/run/docker.sock",)


def within_reach(
    environ: Mapping[str, str] | None = None, home: Path | None = None
) -> tuple[str, ...]:
    """Names of environment variables, files and sockets that hold or open what is secret.

    Args:
        environ: Environment; ours if left out.
        home: Home folder; ours if left out.
    """
    return tuple(_found(os.environ if environ is None else environ, home))


def _found(environ: Mapping[str, str], home: Path | None) -> Iterator[str]:
    yield from sorted(name for name in environ if environ[name] and _NAMES.fullmatch(name.upper()))
    try:
        folder = Path.home() if home is None else home
    except RuntimeError:  # an account without a home
        return
    yield from (f"~/{name}" for name in _FILES if os.path.exists(folder / name))
    yield from (name for name in _SOCKETS if os.access(name, os.W_OK))
