"""Secrets within reach: named, never read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lictor.ambient import within_reach


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "DATABASE_URL",
        "KUBECONFIG",
        "SSH_AUTH_SOCK",
        "api_key",
    ],
)
def test_a_variable_that_holds_a_secret_is_named(tmp_path: Path, name: str) -> None:
    assert name in within_reach({name: "x", "PATH": "/bin"}, tmp_path)


@pytest.mark.parametrize(
    "name", ["PATH", "KEYBOARD", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "HOME"]
)
def test_other_variables_are_not(tmp_path: Path, name: str) -> None:
    assert name not in within_reach({name: "x"}, tmp_path)


def test_an_empty_variable_holds_nothing(tmp_path: Path) -> None:
    assert "OPENAI_API_KEY" not in within_reach({"OPENAI_API_KEY": ""}, tmp_path)


def test_files_of_the_home_folder_are_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("secret")
    (tmp_path / ".aws/credentials").chmod(0)

    found = within_reach({}, tmp_path)

    assert "~/.aws/credentials" in found
    assert "~/.netrc" not in found
