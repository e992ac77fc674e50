"""Each text is paid for once, whichever thread or embedder of the machine wants it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common.wire.messages import Failure
from stages.embedder.calling.vector_guard import Vector
from stages.embedder.providers import mock
from stages.embedder.reuse import Outcome, Reuse, cache_folder, keys_of, vector_cache
from stages.embedder.reuse.vector_cache import VectorCache, open_cache
from tests.waiting import wait_until

SIZE = 2**22
ROOT = Path(__file__).parents[2]
OTHER = """
import sys
from pathlib import Path
from stages.embedder.reuse import Reuse
from tests.embedder.test_reuse import SIZE, keys, vectors

reuse = Reuse(Path(sys.argv[1]), SIZE, alone=False)
texts = sys.argv[2:]
recall = reuse.recall(keys(*texts).values())
mine = [text for text, key in keys(*texts).items() if key in recall.mine]
print("sending", *mine, flush=True)
if sys.stdin.readline().strip() == "vectors":
    reuse.publish({keys(text)[text]: vector for text, vector in vectors(mine).items()})
reuse.release(recall.mine)
print("finished", flush=True)
sys.stdin.readline()
reuse.close()
"""


def vectors(texts: list[str]) -> dict[str, Vector]:
    return dict(zip(texts, mock.vectors("m", texts), strict=True))


def keys(*texts: str) -> dict[str, bytes]:
    return dict(zip(texts, keys_of("p", "v", "m", 0, texts), strict=True))


class Here:
    """This process's `Reuse`, used as a batch uses it, and what was sent."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.stopping = threading.Event()
        self.reuse = Reuse(folder, size, alone=False)
        self.sent: list[list[str]] = []

    def want(self, *texts: str, send: Callable[[list[str]], dict[str, Outcome]] | None = None) -> dict[str, Outcome]:
        """Recall, send, publish and wait; once more for what others did not embed."""
        text_of = {key: text for text, key in keys(*texts).items()}
        recall = self.reuse.recall(text_of)
        outcomes: dict[bytes, Outcome] = {**recall.vectors}
        try:
            if recall.mine:
                mine = [text_of[key] for key in recall.mine]
                self.sent.append(mine)
                fresh = {keys(text)[text]: outcome for text, outcome in (send or vectors)(mine).items()}
                self.reuse.publish(fresh)
                outcomes |= fresh
        finally:
            self.reuse.release(recall.mine)
        outcomes |= self.reuse.await_others(recall.others, self.stopping.wait)
        rest = [text for key, text in text_of.items() if key not in outcomes and key in recall.others]
        found = {text_of[key]: outcome for key, outcome in outcomes.items()}
        return found | (self.want(*rest) if rest and not self.stopping.is_set() else {})


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    own = Here(tmp_path)
    yield own
    own.reuse.close()


@contextmanager
def other(folder: Path, *texts: str) -> Iterator[subprocess.Popen[str]]:
    """Another embedder, which has begun to send these texts; a line on its standard input is its provider's answer."""
    command = [sys.executable, "-c", OTHER, str(folder), *texts]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert said(process) == " ".join(("sending", *texts))
        try:
            yield process
        except BaseException:
            process.kill()  # it may be stopped, and then would be waited for without end
            raise
        if process.poll() is None:
            tell(process, "")


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def test_a_batch_waits_for_texts_that_another_embedder_embeds_now(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a", "b") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "b", "c", "a")
        wait_until(lambda: here.sent == [["c"]])
        assert not wanted.done()
        tell(process, "vectors")
        outcomes = wanted.result(30)
    assert here.sent == [["c"]]
    for text, vector in vectors(["a", "b", "c"]).items():
        assert np.array_equal(np.asarray(outcomes[text]), np.asarray(vector))


def test_vectors_of_another_embedder_are_in_the_cache(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process:
        tell(process, "vectors")
        assert said(process) == "finished"
        assert here.want("a", "b").keys() == {"a", "b"}
    assert here.sent == [["b"]]


def test_a_text_that_another_embedder_could_not_embed_is_sent_by_this_one(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        tell(process, "nothing")
        assert wanted.result(30).keys() == {"a"}
    assert here.sent == [["a"]]


def test_the_claims_of_a_killed_embedder_do_not_count(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        process.kill()
        process.wait()
        assert wanted.result(30).keys() == {"a"}
    assert here.sent == [["a"]]


def test_the_claims_of_a_stopped_embedder_do_not_block_others(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        process.send_signal(signal.SIGSTOP)
        assert wanted.result(30).keys() == {"a"}
        process.send_signal(signal.SIGCONT)
        tell(process, "vectors")
    assert here.sent == [["a"]]


def test_a_stop_ends_the_wait_for_others_at_once(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a"), ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        here.stopping.set()
        wanted.result(30)


def claims_of(cache: VectorCache | None) -> int:
    assert cache is not None
    with cache._env.begin() as txn:
        count: int = txn.stat(cache._claims)["entries"]
    return count


def test_an_error_leaves_no_claim_behind(here: Here) -> None:
    def broken(_: list[str]) -> dict[str, Outcome]:
        assert claims_of(here.reuse.cache) == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        here.want("a", send=broken)
    assert claims_of(here.reuse.cache) == 0
    assert here.want("a").keys() == {"a"}


def test_published_vectors_leave_no_claim_behind(here: Here) -> None:
    here.want("a", "b")
    assert claims_of(here.reuse.cache) == 0


def test_a_claim_older_than_any_batch_does_not_count(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other(tmp_path, "a") as process:
        monkeypatch.setattr(vector_cache, "OLDEST_CLAIM_S", 0.0)
        assert here.want("a").keys() == {"a"}
        tell(process, "nothing")
    assert here.sent == [["a"]]


@pytest.mark.parametrize("size", [0, SIZE])
def test_a_batch_waits_for_texts_that_another_thread_embeds_now(tmp_path: Path, size: int) -> None:
    here, began, go = Here(tmp_path, size), threading.Event(), threading.Event()

    def held(texts: list[str]) -> dict[str, Outcome]:
        began.set()
        assert go.wait(30)
        return {"a": vectors(texts)["a"], "b": Failure("refused_by_provider", "no")}

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(here.want, "a", "b", send=held)
        assert began.wait(30)
        second = pool.submit(here.want, "b", "c", "a")
        wait_until(lambda: ["c"] in here.sent)
        assert not second.done()
        go.set()
        outcomes, expected = second.result(30), first.result(30)
    assert here.sent == [["a", "b"], ["c"]]
    assert np.array_equal(np.asarray(outcomes["a"]), np.asarray(expected["a"]))
    assert outcomes["b"] == Failure("refused_by_provider", "no"), "a final failure is final for all who wait"
    here.reuse.close()


def test_texts_released_by_a_thread_are_free_for_the_next(tmp_path: Path) -> None:
    here = Here(tmp_path, 0)
    first = here.reuse.recall(keys("a").values())
    second = here.reuse.recall(keys("a").values())
    assert (list(second.mine), list(second.others)) == ([], list(first.mine))
    here.reuse.release(first.mine)
    assert here.reuse.await_others(second.others, here.stopping.wait) == {}
    third = here.reuse.recall(keys("a").values())
    assert third.mine.keys() == first.mine.keys()
    here.reuse.release(first.mine)
    assert here.reuse.recall(keys("a").values()).others, "a second release does not free what is another batch's by now"


def test_final_failures_are_not_stored(here: Here) -> None:
    outcomes = here.want("a", send=lambda texts: dict.fromkeys(texts, Failure("refused_by_provider", "no")))
    assert isinstance(outcomes["a"], Failure)
    assert np.array_equal(np.asarray(here.want("a")["a"]), vectors(["a"])["a"])


def test_vectors_of_another_length_are_embedded_again(here: Here) -> None:
    here.want("a")
    length = len(vectors(["a"])["a"])
    assert here.reuse.recall(keys("a").values(), length).vectors
    recall = here.reuse.recall(keys("a").values(), length + 1)
    assert (recall.vectors, list(recall.mine), recall.others) == ({}, list(keys("a").values()), {})


def test_a_key_that_is_asked_for_twice_is_claimed_once(here: Here) -> None:
    (key,) = keys("a").values()
    recall = here.reuse.recall([key, key])
    assert (list(recall.mine), recall.others) == ([key], {})
    here.reuse.release(recall.mine)


def test_the_last_process_to_close_the_cache_notes_that_it_was_closed_properly(here: Here, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with other(tmp_path, "a") as process:
        tell(process, "vectors")
        assert said(process) == "finished"
    assert b"closed" not in state.read_bytes(), "this process still has it open"
    here.reuse.close()
    assert b"closed" in state.read_bytes()
    again = open_cache(tmp_path, SIZE)
    assert again is not None
    assert again.get(keys("a").values())
    here.reuse.cache = again


def test_processes_of_different_pid_namespaces_do_not_share_a_cache(here: Here, tmp_path: Path) -> None:
    here.want("a")
    code = (
        "import sys; from pathlib import Path\n"
        "from stages.embedder.reuse import cache_folder\n"
        "from stages.embedder.reuse.vector_cache import open_cache\n"
        "cache_folder._namespace = lambda: b'pid:[1]'\n"
        f"print(open_cache(Path(sys.argv[1]), {SIZE}))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "another PID namespace" in done.stdout
    assert done.stdout.splitlines()[-1] == "None"


def test_an_embedder_that_was_stopped_while_it_wrote_does_not_block_others(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "WRITE_TIMEOUT_S", 0.05)
    cache = here.reuse.cache
    assert cache is not None
    stuck = os.open(cache._folder.data.parent / "changes.lock", os.O_RDWR)
    fcntl.flock(stuck, fcntl.LOCK_EX)
    assert here.want("a").keys() == {"a"}
    assert cache.get(keys("a").values()) == {}
    os.close(stuck)
    here.want("a")
    assert len(cache.get(keys("a").values())) == 1


def test_an_embedder_that_was_stopped_while_it_wrote_does_not_block_the_start_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "OPEN_TIMEOUT_S", 0.05)
    stuck = os.open(tmp_path / "changes.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(stuck, fcntl.LOCK_EX)
    here = Here(tmp_path)
    assert here.reuse.cache is None
    assert here.want("a").keys() == {"a"}
    os.close(stuck)
