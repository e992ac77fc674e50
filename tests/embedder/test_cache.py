"""The cache is bounded, and it never returns a damaged vector."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import mock
from stages.embedder.reuse import cache_folder, vector_cache
from stages.embedder.reuse.vector_cache import VectorCache, keys_of, open_cache
from tests.embedder.fakes import LENGTH, MODEL, Clock, ScriptedProvider, settings

SIZE = 2**20


def keys(*texts: str) -> list[bytes]:
    return keys_of("p", "v", "m", 0, texts)


def filled(folder: Path, *texts: str, size: int = SIZE) -> VectorCache:
    cache = open_cache(folder, size)
    assert cache is not None
    cache.put(dict(zip(keys(*texts), mock.vectors("m", texts), strict=True)))
    return cache


def killed(cache: VectorCache) -> None:
    """Close the files as the kernel does when the process dies."""
    cache._env.close()
    cache._folder.close()


def bytes_on_disk(folder: Path) -> int:
    return (folder / "vectors.lmdb" / "data.mdb").stat().st_size


def test_vectors_are_found_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b").close()
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    found = cache.get(keys("b", "c"))
    assert list(found) == keys("b")
    assert np.array_equal(found[keys("b")[0]], mock.vectors("m", ["b"])[0])
    cache.close()


def test_provider_vendor_model_dimensions_and_text_all_change_the_key() -> None:
    variants = [
        ("p", "v", "m", 0, ["t"]),
        ("q", "v", "m", 0, ["t"]),
        ("p", "w", "m", 0, ["t"]),
        ("p", "v", "n", 0, ["t"]),
        ("p", "v", "m", 8, ["t"]),
        ("p", "v", "m", 0, ["u"]),
    ]
    assert len({keys_of(*variant)[0] for variant in variants}) == len(variants)


def test_the_oldest_vectors_are_deleted_first_and_the_file_stays_within_its_size(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    for number in range(300):
        texts = [f"{number} {part}" for part in range(5)]
        vectors = mock.vectors("m", texts, 1536 if number % 2 else 3072)  # gaps of different sizes
        cache.put(dict(zip(keys(*texts), vectors, strict=True)))
    assert not cache.get(keys("0 0", "1 0", "200 0"))
    assert len(cache.get(keys("299 0", "298 4", "297 2"))) == 3
    assert bytes_on_disk(tmp_path) <= SIZE
    cache.close()


def test_a_batch_larger_than_the_cache_is_kept_in_part(tmp_path: Path) -> None:
    texts = [str(number) for number in range(500)]
    cache = filled(tmp_path, *texts)
    assert 10 < len(cache.get(keys(*texts))) < 200
    cache.close()


def test_a_damaged_vector_is_not_returned(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a", "b")
    key = keys("a")[0]
    with cache._env.begin(write=True, db=cache._vectors) as txn:
        value = bytearray(txn.get(key))
        value[100] ^= 1
        txn.put(key, bytes(value))
    assert list(cache.get(keys("a", "b"))) == keys("b")
    cache.close()


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 2000])
def test_a_damaged_file_is_discarded_and_the_cache_works_again(tmp_path: Path, garbage: bytes) -> None:
    filled(tmp_path, "a").close()
    (tmp_path / "vectors.lmdb" / "data.mdb").write_bytes(garbage)
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    assert not cache.get(keys("a"))
    cache.put(dict(zip(keys("b"), mock.vectors("m", ["b"]), strict=True)))
    assert cache.get(keys("b"))
    cache.close()


def test_a_crash_of_the_machine_discards_the_cache_but_not_a_crash_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, os; from pathlib import Path; from tests.embedder.test_cache import filled\n"
        "filled(Path(sys.argv[1]), 'a'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, cwd=Path(__file__).parents[2])
    survivor = open_cache(tmp_path, SIZE)
    assert survivor is not None
    assert survivor.get(keys("a")), "a crash of the process alone costs nothing"
    killed(survivor)
    monkeypatch.setattr(cache_folder, "_boot", lambda: b"another-boot")
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    assert not cache.get(keys("a"))
    cache.close()


def test_the_cache_is_discarded_after_three_starts_in_a_row_that_did_not_end_properly(tmp_path: Path) -> None:
    for start in range(cache_folder.MAX_UNCLEAN_STARTS + 1):
        cache = open_cache(tmp_path, SIZE)
        assert cache is not None
        assert bool(cache.get(keys("a"))) is (0 < start < cache_folder.MAX_UNCLEAN_STARTS)
        cache.put(dict(zip(keys("a"), mock.vectors("m", ["a"]), strict=True)))
        killed(cache)


def test_a_file_larger_than_the_configured_size_is_discarded(tmp_path: Path) -> None:
    filled(tmp_path, *map(str, range(300)), size=4 * SIZE).close()
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    assert bytes_on_disk(tmp_path) < SIZE
    cache.close()


def test_there_is_no_cache_if_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert open_cache(tmp_path / "file" / "cache", SIZE) is None


def test_a_cache_that_breaks_does_nothing_and_is_discarded_at_the_next_start(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    cache._env.close()
    assert cache.get(keys("a")) == {}
    cache.put(dict(zip(keys("b"), mock.vectors("m", ["b"]), strict=True)))
    cache.close()
    fresh = open_cache(tmp_path, SIZE)
    assert fresh is not None
    assert not fresh.get(keys("a"))
    fresh.close()


WRITER = """
import sys
from pathlib import Path
from stages.embedder.providers import mock
from tests.embedder.test_cache import SIZE, keys, open_cache

cache = open_cache(Path(sys.argv[1]), SIZE)
print("open", flush=True)
for number in range(10**9):
    texts = [f"{sys.argv[2]} {number} {part}" for part in range(5)]
    cache.put(dict(zip(keys(*texts), mock.vectors("m", texts), strict=True)))
"""


def test_a_cache_whose_writers_are_killed_again_and_again_returns_only_true_vectors(tmp_path: Path) -> None:
    root, dice = Path(__file__).parents[2], random.Random(1)
    for start in range(4):
        survivor = open_cache(tmp_path, SIZE)  # it keeps the cache open, so that no start discards it
        assert survivor is not None
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(start)]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            time.sleep(dice.uniform(0.01, 0.1))  # the moment of the kill, not a wait for anything
            writer.send_signal(signal.SIGKILL)
        texts = [f"{start} {number} {part}" for number in range(2000) for part in range(5)]
        found = survivor.get(keys(*texts))
        for text, key in zip(texts, keys(*texts), strict=True):
            if key in found:
                assert np.array_equal(found[key], mock.vectors("m", [text])[0])
        survivor.put(dict(zip(keys("after"), mock.vectors("m", ["after"]), strict=True)))
        assert survivor.get(keys("after"))
        assert bytes_on_disk(tmp_path) <= SIZE
        survivor.close()


def test_a_cache_of_another_version_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, "a").close()
    monkeypatch.setattr(cache_folder, "VERSION", b"3")
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    assert not cache.get(keys("a"))
    cache.close()


def test_a_vector_of_another_length_than_expected_is_not_returned(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    length = len(mock.vectors("m", ["a"])[0])
    assert cache.get(keys("a"), length)
    assert not cache.get(keys("a"), length + 1)
    assert not cache.get(keys("a"), length - 1)
    cache.close()


def test_a_full_file_loses_old_vectors_and_the_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "FILL_RATIO", 0.95)  # more than LMDB can hold: MapFullError
    cache = open_cache(tmp_path, SIZE)
    assert cache is not None
    for number in range(300):
        texts = [f"{number} {part}" for part in range(5)]
        cache.put(dict(zip(keys(*texts), mock.vectors("m", texts), strict=True)))
    cache.put(dict(zip(keys("last"), mock.vectors("m", ["last"]), strict=True)))
    assert cache.get(keys("last")) or cache.get(keys("299 0")) or cache.get(keys("298 0"))
    assert bytes_on_disk(tmp_path) <= SIZE
    cache.close()


def test_a_later_batch_pays_only_for_texts_that_are_not_in_the_cache(tmp_path: Path) -> None:
    provider, clock = ScriptedProvider(), Clock()
    fields = {
        "embedding_cache_size": 2**22, "state_dir": tmp_path, "embedder_processes": 2, "embedding_dimensions": LENGTH,
    }  # fmt: skip
    shared = EmbeddingEngine(settings(**fields), made=[provider], clock=clock, wait=clock.wait)
    session = shared.session()
    session.embed(MODEL, ["a", "b"])
    assert session.cached == 0
    again = shared.session()
    again.embed(MODEL, ["b", "a", "c"])
    assert again.cached == 2
    assert provider.requests == [["a", "b"], ["c"]]
    shared.close()
