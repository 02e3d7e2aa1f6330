"""Servers that tests need; each is started once and ended with the session."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tests.backends.object_servers import Azurite, ObjectServer, S3Server, installed_azurite
from tests.servers import Postgres, binaries

from trimtab.core.optional import have

_RIGHTS = ("needs root", "cannot be mounted")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """Let nothing be skipped where ``.ci/run`` has installed everything, except for want of rights."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("TRIMTAB_SKIP_NOTHING") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(words in reason for words in _RIGHTS):
            report.outcome = "failed"
            report.longrepr = f"skipped, where nothing should be: {reason}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a PostgreSQL server; ``.ci/run`` installs one, elsewhere the tests are skipped without it."""
    bins = binaries()
    if bins is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(bins)
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectServer]:
    """Return a running S3 server; the tests are skipped without moto."""
    if not (have("obstore") and have("moto")):
        pytest.skip("obstore or moto is not installed")
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def azure() -> Iterator[Azurite]:
    """Return a running Azurite; the tests are skipped where npm cannot install it."""
    if not have("obstore"):
        pytest.skip("obstore is not installed")
    try:
        program = installed_azurite()
    except LookupError as error:
        pytest.skip(str(error))
    server = Azurite(program)
    yield server
    server.close()
