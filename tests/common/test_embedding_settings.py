"""The settings of embeddings that are checked by rules of their own."""

from __future__ import annotations

import pytest

from common.failures.errors import SettingsError
from tests import samples

DURATIONS = ["", "10m", "1h30m", "-1", "300", "0", "1.5h", "250ms", "+5s", "90.5"]
NO_DURATIONS = ["10 minutes", "10min", "5 m", "m", "1d", "forever", "--1", "1e3", "\u0661\u0660m", "10m\n5", "-", "."]


@pytest.mark.parametrize("value", DURATIONS)
def test_ollama_keep_alive_is_a_duration_of_go_or_a_number_of_seconds(value: str) -> None:
    assert samples.settings(ollama_keep_alive=f" {value} ").ollama_keep_alive == value


@pytest.mark.parametrize("value", NO_DURATIONS)
def test_ollama_keep_alive_that_ollama_cannot_parse_is_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match="OLLAMA_KEEP_ALIVE: must be a duration such as 10m"):
        samples.settings(ollama_keep_alive=value)


@pytest.mark.parametrize("value", ['{"m": 0}', '{"m": "many"}', '{"m": 65537}', "[]", "{"])
def test_embedding_lengths_that_cannot_be_are_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match="EMBEDDING_LENGTHS: "):
        samples.settings(embedding_lengths=value)


def test_embedding_lengths_are_read_as_json() -> None:
    assert samples.settings(embedding_lengths='{"my-model": 1024}').embedding_lengths == {"my-model": 1024}
