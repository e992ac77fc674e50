"""The cache: bounded, and nothing damaged ever comes out of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.embedder.providers import mock
from stages.embedder.reuse import cache_folder
from stages.embedder.reuse.cache import Cache, keys_of, opened

SIZE = 2**20


def keys(*texts: str) -> list[bytes]:
    return keys_of("p", "v", "m", 0, texts)


def filled(folder: Path, *texts: str, size: int = SIZE) -> Cache:
    cache = opened(folder, size)
    assert cache is not None
    cache.put(dict(zip(keys(*texts), mock.vectors("m", texts), strict=True)))
    return cache


def killed(cache: Cache) -> None:
    """What the kernel does when the process dies."""
    cache._env.close()
    cache._folder.close()


def on_disk(folder: Path) -> int:
    return (folder / "vectors.lmdb" / "data.mdb").stat().st_size


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b").close()
    cache = opened(tmp_path, SIZE)
    assert cache is not None
    found = cache.get(keys("b", "c"))
    assert list(found) == keys("b")
    assert np.array_equal(found[keys("b")[0]], mock.vectors("m", ["b"])[0])
    cache.close()


def test_everything_that_matters_is_in_the_key() -> None:
    variants = [
        ("p", "v", "m", 0, ["t"]),
        ("q", "v", "m", 0, ["t"]),
        ("p", "w", "m", 0, ["t"]),
        ("p", "v", "n", 0, ["t"]),
        ("p", "v", "m", 8, ["t"]),
        ("p", "v", "m", 0, ["u"]),
    ]
    assert len({keys_of(*variant)[0] for variant in variants}) == len(variants)


def test_the_oldest_go_first_and_the_file_stays_within_its_size(tmp_path: Path) -> None:
    cache = opened(tmp_path, SIZE)
    assert cache is not None
    for number in range(300):
        texts = [f"{number} {part}" for part in range(5)]
        vectors = mock.vectors("m", texts, 1536 if number % 2 else 3072)  # gaps of different sizes
        cache.put(dict(zip(keys(*texts), vectors, strict=True)))
    assert not cache.get(keys("0 0", "1 0", "200 0"))
    assert len(cache.get(keys("299 0", "298 4", "297 2"))) == 3
    assert on_disk(tmp_path) <= SIZE
    cache.close()


def test_a_batch_larger_than_the_cache_is_kept_in_part(tmp_path: Path) -> None:
    texts = [str(number) for number in range(500)]
    cache = filled(tmp_path, *texts)
    assert 10 < len(cache.get(keys(*texts))) < 200
    cache.close()


def test_a_damaged_vector_is_not_there(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a", "b")
    key = keys("a")[0]
    with cache._env.begin(write=True, db=cache._vectors) as txn:
        value = bytearray(txn.get(key))
        value[100] ^= 1
        txn.put(key, bytes(value))
    assert list(cache.get(keys("a", "b"))) == keys("b")
    cache.close()


@pytest.mark.parametrize("rubbish", [b"", b"rubbish" * 2000])
def test_a_damaged_file_is_discarded(tmp_path: Path, rubbish: bytes) -> None:
    filled(tmp_path, "a").close()
    (tmp_path / "vectors.lmdb" / "data.mdb").write_bytes(rubbish)
    cache = opened(tmp_path, SIZE)
    assert cache is not None
    assert not cache.get(keys("a"))
    cache.put(dict(zip(keys("b"), mock.vectors("m", ["b"]), strict=True)))
    assert cache.get(keys("b"))
    cache.close()


def test_after_a_crash_of_the_machine_it_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, os; from pathlib import Path; from tests.embedder.test_cache import filled\n"
        "filled(Path(sys.argv[1]), 'a'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, cwd=Path(__file__).parents[2])
    survivor = opened(tmp_path, SIZE)
    assert survivor is not None
    assert survivor.get(keys("a")), "a crash of the process alone costs nothing"
    killed(survivor)
    monkeypatch.setattr(cache_folder, "_boot", lambda: b"another-boot")
    cache = opened(tmp_path, SIZE)
    assert cache is not None
    assert not cache.get(keys("a"))
    cache.close()


def test_what_it_may_have_died_of_is_discarded(tmp_path: Path) -> None:
    for start in range(cache_folder.UNCLEAN + 1):
        cache = opened(tmp_path, SIZE)
        assert cache is not None
        assert bool(cache.get(keys("a"))) is (0 < start < cache_folder.UNCLEAN)
        cache.put(dict(zip(keys("a"), mock.vectors("m", ["a"]), strict=True)))
        killed(cache)


def test_a_smaller_size_begins_anew(tmp_path: Path) -> None:
    filled(tmp_path, *map(str, range(300)), size=4 * SIZE).close()
    cache = opened(tmp_path, SIZE)
    assert cache is not None
    assert on_disk(tmp_path) < SIZE
    cache.close()


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert opened(tmp_path / "file" / "cache", SIZE) is None


def test_one_that_breaks_is_silent_and_discarded_at_the_next_start(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    cache._env.close()
    assert cache.get(keys("a")) == {}
    cache.put(dict(zip(keys("b"), mock.vectors("m", ["b"]), strict=True)))
    cache.close()
    fresh = opened(tmp_path, SIZE)
    assert fresh is not None
    assert not fresh.get(keys("a"))
    fresh.close()
