"""Requests and tokens of every provider are counted, also of providers of other packages."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from common.failures.errors import Permanent, Throttled, Transient
from common.process import metrics
from stages.embedder.providers import (
    AskAgain,
    BadInput,
    Embeddings,
    NeedsOperator,
    NoModelYet,
    NotSent,
    ProviderServerError,
    mock,
)
from stages.embedder.providers.request_metrics import counted_embed
from tests.embedder.fakes import MODEL, Clock, ScriptedProvider, engine


def value(name: str, labels: Mapping[str, str]) -> float:
    return metrics.REGISTRY.get_sample_value(name, dict(labels)) or 0.0


def requests(provider: str, status: str) -> float:
    return value("provider_requests_total", {"provider": provider, "model": MODEL, "status": status})


def tokens(provider: str, kind: str) -> float:
    return value("provider_tokens_used_total", {"provider": provider, "model": MODEL, "type": kind})


def test_a_provider_of_another_package_has_its_requests_and_tokens_counted() -> None:
    name = "of another package"
    shared = engine(ScriptedProvider(ProviderServerError("500"), name=name), clock=Clock())
    session = shared.session()
    session.embed(MODEL, ["a", "b"])
    assert (requests(name, "ok"), requests(name, "server_error")) == (1, 1)
    assert tokens(name, "total") == tokens(name, "prompt") == len("ab")
    shared.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotSent("no connection"), "not_sent"),
        (ProviderServerError("500"), "server_error"),
        (Throttled("429", 1.0), "throttled"),
        (Transient("502"), "transient"),
        (AskAgain("without dimensions", "x"), "ask_again"),
        (BadInput("too long"), "bad_input"),
        (NeedsOperator("bad key"), "needs_operator"),
        (Permanent("never", "x"), "refused"),
        (ZeroDivisionError("a defect of the provider"), "error"),
    ],
)
def test_a_request_that_fails_is_counted_by_the_kind_of_its_error(error: Exception, status: str) -> None:
    provider = ScriptedProvider(error, name=f"fails with {status}")
    with pytest.raises(type(error)):
        counted_embed(provider, MODEL, ["a"])
    assert requests(provider.name, status) == 1
    assert requests(provider.name, "ok") == 0


def test_a_model_that_is_still_missing_is_not_counted_as_a_request() -> None:
    provider = ScriptedProvider(NoModelYet("is being downloaded", 1.0), name="fetches")
    with pytest.raises(NoModelYet):
        counted_embed(provider, MODEL, ["a"])
    assert requests(provider.name, "throttled") == 0


def test_a_provider_that_reports_no_tokens_counts_none() -> None:
    provider = ScriptedProvider(Embeddings(mock.vectors(MODEL, ["a"]), 0), name="reports nothing")
    counted_embed(provider, MODEL, ["a"])
    assert (requests(provider.name, "ok"), tokens(provider.name, "total")) == (1, 0)
