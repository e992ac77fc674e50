"""What the embedders of one machine share: each text is paid for once, whichever of them wants it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stages.embedder.engine import Embedding
from stages.embedder.providers import mock
from stages.embedder.reuse import cache_folder
from stages.embedder.reuse.cache import keys_of, opened
from stages.embedder.reuse.flights import Landed
from stages.embedder.reuse.memory import Memory
from tests.embedder.fakes import MODEL, Clock, Scripted, settings
from tests.waiting import wait_until

SIZE = 2**22
ROOT = Path(__file__).parents[2]
OTHER = """
import sys
from pathlib import Path
from stages.embedder.reuse.cache import keys_of
from stages.embedder.reuse.memory import Memory
from tests.embedder.test_memory import SIZE, vectors

memory = Memory(Path(sys.argv[1]), SIZE, lambda _: False, alone=False)
texts = sys.argv[2:]

def send(missing):
    print("sending", *missing, flush=True)
    answer = sys.stdin.readline().strip()
    return (vectors(missing) if answer == "vectors" else dict.fromkeys(missing)), 0.0

keys = keys_of("p", "v", "m", 0, texts)
print("outcomes", *memory.recall(dict(zip(texts, keys)), None, send).outcomes, flush=True)
sys.stdin.readline()
memory.close()
"""


def vectors(texts: list[str]) -> dict[str, Landed]:
    return dict(zip(texts, mock.vectors("m", texts), strict=True))


def keys(*texts: str) -> dict[str, bytes]:
    return dict(zip(texts, keys_of("p", "v", "m", 0, texts), strict=True))


class Here:
    """This process's memory, and what it sent."""

    def __init__(self, folder: Path) -> None:
        self.stopping = threading.Event()
        self.memory = Memory(folder, SIZE, self.stopping.wait, alone=False)
        self.sent: list[list[str]] = []

    def send(self, texts: list[str]) -> tuple[dict[str, Landed], float]:
        self.sent.append(texts)
        return vectors(texts), 0.0

    def want(self, *texts: str) -> dict[str, Landed]:
        return self.memory.recall(keys(*texts), None, self.send).outcomes


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    own = Here(tmp_path)
    yield own
    own.memory.close()


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


def test_what_another_embedder_is_embedding_is_waited_for(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a", "b") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "b", "c", "a")
        wait_until(lambda: here.sent == [["c"]])
        assert not wanted.done()
        tell(process, "vectors")
        outcomes = wanted.result(30)
    assert here.sent == [["c"]]
    for text, vector in vectors(["a", "b", "c"]).items():
        assert np.array_equal(np.asarray(outcomes[text]), np.asarray(vector))


def test_what_another_embedder_has_embedded_is_there(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process:
        tell(process, "vectors")
        assert said(process) == "outcomes a"
        assert here.want("a", "b").keys() == {"a", "b"}
    assert here.sent == [["b"]]


def test_what_another_embedder_could_not_embed_is_sent_here(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        tell(process, "nothing")
        assert wanted.result(30).keys() == {"a"}
    assert here.sent == [["a"]]


def test_one_that_was_killed_claims_nothing(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        process.kill()
        process.wait()
        assert wanted.result(30).keys() == {"a"}
    assert here.sent == [["a"]]


def test_one_that_is_stopped_holds_up_nobody(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a") as process, ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        process.send_signal(signal.SIGSTOP)
        assert wanted.result(30).keys() == {"a"}
        process.send_signal(signal.SIGCONT)
        tell(process, "vectors")
    assert here.sent == [["a"]]


def test_a_stop_does_not_wait_for_others(here: Here, tmp_path: Path) -> None:
    with other(tmp_path, "a"), ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(here.want, "a")
        here.stopping.set()
        wanted.result(30)


def test_an_error_leaves_no_claim_behind(here: Here) -> None:
    def broken(_: list[str]) -> tuple[dict[str, Landed], float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        here.memory.recall(keys("a"), None, broken)
    assert here.memory.cache is not None
    assert here.memory.cache.look(lambda txn: txn.stat(here.memory.cache.claims)["entries"]) == 0  # type: ignore[union-attr]


def test_the_last_one_out_says_that_it_was_closed_properly(here: Here, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with other(tmp_path, "a") as process:
        tell(process, "vectors")
        assert said(process) == "outcomes a"
    assert b"closed" not in state.read_bytes(), "this process still has it open"
    here.memory.close()
    assert b"closed" in state.read_bytes()
    again = opened(tmp_path, SIZE)
    assert again is not None
    assert again.get(keys("a").values())
    here.memory.cache = again


def test_processes_that_see_no_pids_of_each_other_do_not_share(here: Here, tmp_path: Path) -> None:
    here.want("a")
    code = (
        "import sys; from pathlib import Path\n"
        "from stages.embedder.reuse import cache_folder\n"
        "from stages.embedder.reuse.cache import opened\n"
        "cache_folder._namespace = lambda: b'pid:[1]'\n"
        f"print(opened(Path(sys.argv[1]), {SIZE}))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "another PID namespace" in done.stdout
    assert done.stdout.splitlines()[-1] == "None"


def test_one_that_was_stopped_while_it_wrote_holds_up_nobody(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "WRITE_PATIENCE", 0.05)
    cache = here.memory.cache
    assert cache is not None
    stuck = os.open(cache._folder.data.parent / "writing.lock", os.O_RDWR)
    fcntl.flock(stuck, fcntl.LOCK_EX)
    assert here.want("a").keys() == {"a"}
    assert cache.get(keys("a").values()) == {}
    os.close(stuck)
    here.want("a")
    assert len(cache.get(keys("a").values())) == 1


def test_several_embedders_pay_once_for_what_they_embed_together(tmp_path: Path) -> None:
    provider, clock = Scripted(), Clock()
    fields = {"embedding_cache_size": SIZE, "state_dir": tmp_path, "embedder_processes": 2}
    shared = Embedding(settings(**fields), made=[provider], clock=clock, wait=clock.wait)
    session = shared.session()
    session.embed(MODEL, ["a", "b"])
    assert session.cached == 0
    again = shared.session()
    again.embed(MODEL, ["b", "a", "c"])
    assert again.cached == 2
    assert provider.requests == [["a", "b"], ["c"]]
    shared.close()
