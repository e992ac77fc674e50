"""Settings that are read from files, and one that may be set to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.settings.settings import Settings, read
from tests.common.settings_problems import only

pytestmark = pytest.mark.usefixtures("settings_environment")


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def test_any_variable_may_be_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OAUTH2_CLIENT_SECRET")
    monkeypatch.setenv("OAUTH2_CLIENT_SECRET_FILE", write(tmp_path / "secret", " p+/=&% ü \n"))
    monkeypatch.setenv("METRICS_PORT_FILE", write(tmp_path / "port", "9000\r\n"))
    settings: Settings = read()
    assert settings.oauth2_client_secret.get_secret_value() == " p+/=&% ü "
    assert settings.metrics_port == 9000


def test_dot_env_may_name_files_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("OAUTH2_CLIENT_SECRET", "OAUTH2_CLIENT_ID"):
        monkeypatch.delenv(variable)
    secret, port = write(tmp_path / "secret", "from file"), write(tmp_path / "port", "9000")
    lines = [f"OAUTH2_CLIENT_SECRET_FILE={secret}", "OAUTH2_CLIENT_ID=me", "METRICS_PORT=1", "OPENAI_API_KEY_FILE=gone"]
    Path(".env").write_text("\n".join(lines))
    monkeypatch.setenv("METRICS_PORT_FILE", port)
    settings: Settings = read()
    assert settings.oauth2_client_secret.get_secret_value() == "from file"
    assert (settings.oauth2_client_id, settings.metrics_port) == ("me", 9000)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert only().startswith("OPENAI_API_KEY_FILE: gone cannot be read: No such file or directory; ")


def test_a_file_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path) -> None:
    cases = {
        str(tmp_path / "missing"): "cannot be read: No such file or directory",
        str(tmp_path): "cannot be read: Is a directory",
        write(tmp_path / "empty", "\n"): "is empty",
        write(tmp_path / "large", "x" * 70_000): "is larger than 65536 bytes",
        "/proc/self/exe": "does not contain UTF-8 text",
    }
    for path, why in cases.items():
        found = only(OAUTH2_CLIENT_SECRET="", OAUTH2_CLIENT_SECRET_FILE=path)
        remedy = "put the value there, or set OAUTH2_CLIENT_SECRET instead"
        assert found == f"OAUTH2_CLIENT_SECRET_FILE: {path} {why}; {remedy}"


def test_a_variable_and_its_file_variable_must_not_both_be_set(tmp_path: Path) -> None:
    found = only(OAUTH2_CLIENT_ID_FILE=write(tmp_path / "id", "me"))
    assert found == "OAUTH2_CLIENT_ID: OAUTH2_CLIENT_ID_FILE is set too; set only one of them"


@pytest.mark.parametrize(
    ("in_env", "in_file", "expected"),
    [
        (None, None, "text-embedding-3-small"),
        ("", None, ""),
        (None, "", ""),
        ("", "ours", ""),
        ("ours", "", "ours"),
        (None, "ours", "ours"),
    ],
)
def test_the_default_model_may_be_set_to_nothing(
    in_env: str | None, in_file: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if in_env is not None:
        monkeypatch.setenv("DEFAULT_EMBEDDING_MODEL", in_env)
    file = tmp_path / "env"
    file.write_text("" if in_file is None else f"DEFAULT_EMBEDDING_MODEL={in_file}\n")
    assert read(env_file=file).default_embedding_model == expected
