"""`make audit` distinguishes three outcomes: no vulnerability, some vulnerabilities, and an unreachable database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.deploy.tools import ROOT


class Database(BaseHTTPRequestHandler):
    """A stand-in for osv.dev; its server says which package is vulnerable."""

    def do_POST(self) -> None:
        package = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        known = {"vulns": [vulnerability(package)]} if package["name"] == getattr(self.server, "vulnerable", "") else {}
        body = json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def vulnerability(package: dict[str, str]) -> dict[str, Any]:
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999"}]}
    return {"id": "PYSEC-2026-1", "details": "bad", "affected": [{"package": package, "ranges": [fixed]}]}


@contextmanager
def database(vulnerable: str = "") -> Iterator[str]:
    """Run the database; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        server.vulnerable = vulnerable  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def audit(url: str, cache: Path) -> tuple[bool, list[str]]:
    """Run `make audit`; returns whether it succeeded, and the lines of its output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
        "PIP_AUDIT_OSV_URL": url,
        "NO_PROXY": "127.0.0.1",
        "XDG_CACHE_HOME": str(cache),
    }
    command = ["make", "--silent", "--old-file", ".venv/.ready", "audit"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout.splitlines()


def test_the_audit_succeeds_without_known_vulnerabilities(tmp_path: Path) -> None:
    with database() as url:
        assert audit(url, tmp_path) == (True, ["No known vulnerabilities found"])


def test_the_audit_fails_and_names_a_vulnerable_package(tmp_path: Path) -> None:
    with database(vulnerable="requests") as url:
        succeeded, lines = audit(url, tmp_path)
    assert not succeeded
    assert any(line.split()[::2] == ["requests", "PYSEC-2026-1"] for line in lines), lines
    assert lines[-1] == "Found 1 known vulnerability in 1 package"


def test_the_audit_fails_if_the_database_cannot_be_reached(tmp_path: Path) -> None:
    with database() as url:
        pass
    succeeded, lines = audit(url, tmp_path)
    assert not succeeded
    assert len(lines) == 1
    assert lines[0].startswith("Not audited, so nothing is known: requests.exceptions.ConnectionError: "), lines


def test_the_audit_is_strict_about_unknown_packages() -> None:
    assert "--strict" in (ROOT / "Makefile").read_text().split("\naudit:")[1].split("\n\n")[0]
