"""Download models that Ollama does not have: each is downloaded once, and tasks of other models go on meanwhile.

One thread of one embedder process downloads a model; a lock file in RUNTIME_DIR keeps the other processes of this
machine from doing the same (Ollama would join both, but each would hold a connection). `POST /api/pull` answers 200 at
once and then streams JSON lines; the last one says `success` or has an `error`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import requests
import structlog

from common.api import tls_and_proxy
from common.failures.errors import Transient
from common.failures.retry import Backoff
from common.ownership import acquire, open_lock
from stages.embedder.providers import NoModelYet
from stages.embedder.providers.odd_forms import OddFormError, json_value
from stages.embedder.providers.redaction import redact

CHECK_INTERVAL_S = 1.0
"""Seconds between two checks whether the model has arrived."""
RETRY_BACKOFF = Backoff(first=5.0, factor=2.0, longest=300.0)
"""Delay before a failed download is tried again: the registry may be back, or an operator may have corrected it."""
LOG_INTERVAL_S = 10.0
"""Seconds between two progress lines in the log; each quarter of the download is logged too."""

_NO_SUCH_MODEL = re.compile(r"file does not exist|manifest unknown|model.{0,80}not found|invalid model name")
"""The registry has no such model. Another failure of a download says nothing about this."""

log = structlog.get_logger()


class _Line(msgspec.Struct):
    status: str | None = ""
    error: str | None = ""
    total: int | None = 0
    completed: int | None = 0


def tagged(model: str) -> str:
    """Return the name as Ollama lists it: `:latest` is the tag of a name without one."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


class ModelDownload:
    """The downloads of one Ollama server."""

    def __init__(self, url: str, locks: Path, timeout: float) -> None:
        self._url = url
        self._locks = locks
        self._timeout = timeout
        self._closing = threading.Event()
        self._mutex = threading.Lock()
        self._progress: dict[str, str] = {}
        self._failures: dict[str, tuple[int, float, str]] = {}

    def want(self, model: str) -> None:
        """Start to download a missing model, unless it is being downloaded or has failed a short time ago."""
        with self._mutex:
            failures, cooldown_until, _ = self._failures.get(model, (0, 0.0, ""))
            if model in self._progress or time.monotonic() < cooldown_until or self._closing.is_set():
                return
            self._progress[model] = f"{model} is being downloaded"
            threading.Thread(target=self._fetch, args=(model, failures), name=f"pull {model}", daemon=True).start()

    def raise_if_unavailable(self, model: str) -> None:
        """Raise `NoModelYet` while the model is being downloaded, and after a failure until the next try."""
        with self._mutex:
            if model in self._progress:
                raise NoModelYet(self._progress[model], CHECK_INTERVAL_S)
            _, cooldown_until, reason = self._failures.get(model, (0, 0.0, ""))
            if (left := cooldown_until - time.monotonic()) > 0:
                raise NoModelYet(reason, left, is_unknown=bool(_NO_SUCH_MODEL.search(reason)))

    def progress(self) -> Mapping[str, str]:
        """Return the models that are being downloaded, and their progress as text."""
        with self._mutex:
            return dict(self._progress)

    def close(self) -> None:
        """Start no more downloads; a running one ends with its next progress line."""
        self._closing.set()

    def _fetch(self, model: str, failures: int) -> None:
        log.info("model_pull_started", model=model)
        deadline = time.monotonic() + self._timeout
        try:
            with self._alone(model, deadline):
                if not self._is_there(model):
                    self._pull(model, deadline)
        except (Transient, OSError) as error:  # the errors of `requests` are OSErrors
            reason = f"{model} could not be downloaded: {redact(str(error))}"
            log.warning("model_pull_failed", model=model, reason=reason)
            with self._mutex:
                again = time.monotonic() + RETRY_BACKOFF.delay(failures + 1)
                self._failures[model] = (failures + 1, again, reason)
                del self._progress[model]
        else:
            log.info("model_pull_done", model=model)
            with self._mutex:
                self._failures.pop(model, None)
                del self._progress[model]

    @contextmanager
    def _alone(self, model: str, deadline: float) -> Iterator[None]:
        """Hold the model's lock; wait while another process holds it and downloads the model."""
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"pull-{hashlib.blake2b(f'{self._url} {model}'.encode(), digest_size=8).hexdigest()}.lock"
        descriptor = open_lock(self._locks / name)
        try:
            while not acquire(descriptor):
                self._show(model, f"{model} is being downloaded by another embedder")
                if time.monotonic() > deadline or self._closing.wait(CHECK_INTERVAL_S / 4):
                    raise Transient("another embedder did not finish it within OLLAMA_MODEL_DOWNLOAD_TIMEOUT")
            yield
        finally:
            os.close(descriptor)

    def _is_there(self, model: str) -> bool:
        try:
            return tagged(model) in models(self._url)
        except Transient:  # a list that cannot be read: pulling a model that is there does no harm
            return False

    def _pull(self, model: str, deadline: float) -> None:
        body = {"model": model, "stream": True}
        url, trusted = f"{self._url}/api/pull", tls_and_proxy.ca_file()
        with requests.post(url, json=body, stream=True, timeout=self._timeout, verify=trusted) as response:
            if response.status_code != 200:
                raise Transient(f"{response.status_code}: {response.text[:300]}")
            logged, told = time.monotonic(), 0
            for line in map(_line, response.iter_lines(chunk_size=64)):
                if line.error:
                    raise Transient(line.error)
                if line.status == "success":
                    return
                if time.monotonic() > deadline:
                    raise Transient(f"not finished within OLLAMA_MODEL_DOWNLOAD_TIMEOUT ({self._timeout:g} s)")
                if self._closing.is_set():
                    raise Transient("the embedder is stopping")
                self._show(model, f"{model} is being downloaded: {_in_words(line)}")
                quarters = 4 * (line.completed or 0) // line.total if line.total else 0
                if time.monotonic() - logged >= LOG_INTERVAL_S or quarters > told:
                    logged, told = time.monotonic(), max(told, quarters)
                    log.info("model_pull_progress", model=model, progress=_in_words(line))
        raise Transient("the download ended before it was complete")

    def _show(self, model: str, words: str) -> None:
        with self._mutex:
            self._progress[model] = words


def models(url: str) -> frozenset[str]:
    """Return the server's models by tagged name; raises `requests.RequestException` or `Transient`."""
    response = requests.get(f"{url}/api/tags", timeout=5, verify=tls_and_proxy.ca_file())
    response.raise_for_status()
    if not response.content.strip():
        return frozenset()  # 204, or nothing at all: a server without models
    try:
        listed = json_value(response.content)
    except OddFormError as error:
        raise Transient("the response of /api/tags is not a list of models") from error
    found = listed.get("models", ()) if isinstance(listed, dict) else listed
    if found is None:
        return frozenset()  # Go writes an empty list as null
    if not isinstance(found, list | tuple):
        raise Transient("the response of /api/tags is not a list of models")
    names = (entry.get("name") or entry.get("model") if isinstance(entry, dict) else entry for entry in found)
    return frozenset(tagged(name) for name in names if isinstance(name, str) and name)


def _line(text: bytes) -> _Line:
    try:
        return msgspec.json.decode(text, type=_Line) if text.strip() else _Line()
    except msgspec.MsgspecError as error:
        raise Transient("a progress line of the download is not JSON") from error


def _in_words(line: _Line) -> str:
    if line.total:
        return f"{(line.completed or 0) / line.total:.0%} of {line.total / 1e6:.0f} MB"
    return line.status or "waiting"
