"""What decides how long the vectors of a model must be, and the record of what was learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.embedder.calling.length_record import FILE, MAX_MODELS, LengthRecord
from stages.embedder.calling.vector_lengths import VectorLengths
from stages.embedder.providers.model_lengths import known_length

SMALL = "text-embedding-3-small"
ADA = "text-embedding-ada-002"


@pytest.mark.parametrize(
    ("model", "length"),
    [
        (SMALL, 1536),
        ("text-embedding-3-large", 3072),
        (ADA, 1536),
        ("nomic-embed-text", 768),
        ("nomic-embed-text:latest", 768),
        ("Nomic-Embed-Text:v1.5", 768),
        ("all-minilm:33m", 384),
        ("snowflake-arctic-embed", 1024),
        ("snowflake-arctic-embed:22m-l6-v2-fp16", 384),
        ("snowflake-arctic-embed:another", None),
        ("qwen3-embedding:0.6b-q8_0", 1024),
        ("qwen3-embedding", 4096),
        ("BAAI/bge-m3", 1024),
        ("someone/bge-m3", None),
        ("all-minilm-of-mine", None),
        ("", None),
    ],
)
def test_a_name_tells_the_length_only_if_it_can_mean_no_other_model(model: str, length: int | None) -> None:
    assert known_length(model) == length


def test_a_known_model_needs_no_response_to_know_its_length() -> None:
    lengths = VectorLengths()
    assert lengths.objection(SMALL, 8) == "those of text-embedding-3-small have 1536"
    assert lengths.objection(SMALL, 1536) == ""
    assert lengths.length_of(SMALL) == 1536


def test_what_was_asked_for_must_come() -> None:
    lengths = VectorLengths(dimensions=8)
    assert lengths.objection(SMALL, 8, asked=8) == ""
    assert lengths.objection("mine", 32, asked=8) == "8 were asked for (EMBEDDING_DIMENSIONS)"


def test_where_dimensions_are_not_sent_the_setting_and_the_models_own_length_are_right() -> None:
    lengths = VectorLengths(dimensions=8)
    assert [lengths.objection(ADA, length) for length in (8, 1536)] == ["", ""]
    assert lengths.objection(ADA, 32)
    assert lengths.objection("mine", 8) == ""
    assert lengths.objection("mine", 32) is None, "not known yet"


def test_the_setting_for_a_model_overrides_everything_else() -> None:
    lengths = VectorLengths({SMALL: 4096}, dimensions=256)
    assert lengths.objection(SMALL, 4096, asked=256) == ""
    assert lengths.objection(SMALL, 256, asked=256) == "EMBEDDING_LENGTHS says 4096"
    assert lengths.length_of(SMALL) == 4096


def test_two_responses_must_agree_and_be_more_than_those_for_any_other_length() -> None:
    lengths = VectorLengths()
    for length in (16, 32, 48):
        lengths.vote("mine", length)
        assert lengths.objection("mine", 32) is None
    lengths.vote("mine", 32)
    assert lengths.objection("mine", 32) == ""
    assert lengths.objection("mine", 16) == "those of mine had 32 before"
    for _ in range(5):
        lengths.vote("mine", 16)
    assert lengths.objection("mine", 32) == "", "what was learnt stays"


def test_a_model_is_unknown_until_its_first_response() -> None:
    lengths = VectorLengths()
    assert lengths.is_unknown("mine")
    assert not lengths.is_unknown(SMALL)
    lengths.vote("mine", 16)
    assert not lengths.is_unknown("mine")
    assert not VectorLengths(dimensions=8).is_unknown("mine")


def test_the_record_keeps_a_length_over_restarts_and_the_first_embedder_s_counts(tmp_path: Path) -> None:
    first, second = LengthRecord(tmp_path), LengthRecord(tmp_path)
    assert first.get("mine") is None
    assert first.put("mine", 16) == 16
    assert second.put("mine", 32) == 16
    assert second.get("mine") == 16
    assert second.put("other", 8) == 8
    assert first.get("other") == 8, "read again when it has changed"
    assert LengthRecord(tmp_path).get("mine") == 16


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x00\xff", b"{", b"[]", b'"x"', b'{"mine": "16"}', b'{"mine": -1}', b"[" * 100_000, b"1e999"]
)
def test_a_record_that_cannot_be_read_is_ignored_and_replaced(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / FILE).write_bytes(rubbish)
    record = LengthRecord(tmp_path)
    assert record.get("mine") is None
    assert record.put("mine", 16) == 16
    assert LengthRecord(tmp_path).get("mine") == 16


def test_valid_entries_beside_wrong_ones_are_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"a": 16, "b": true, "c": 1e9, "d": null, "e": 99999999}')
    record = LengthRecord(tmp_path)
    assert [record.get(model) for model in "abcde"] == [16, None, None, None, None]


def test_without_a_usable_folder_lengths_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record = LengthRecord(tmp_path / "file")
    assert record.get("mine") is None
    assert record.put("mine", 16) == 16
    assert record.get("mine") == 16


def test_the_record_is_bounded(tmp_path: Path) -> None:
    record = LengthRecord(tmp_path)
    record._lengths = {f"model {number}": 8 for number in range(MAX_MODELS)}
    record.put("one more", 16)
    later = LengthRecord(tmp_path)
    assert later.get("one more") == 16
    assert later.get("model 0") is None
