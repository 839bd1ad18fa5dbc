"""What every test may rely on: no look-ups on a hub, and the shared data where it is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before anything imports huggingface_hub: with a network and without this, a lookup can hang.
os.environ["HF_HUB_OFFLINE"] = "1"

# A suite that was started in the background ignores Ctrl-C, and so would every process that a
# test starts and then stops with it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine an example may take any time; what must be quick has a test that says so.
hypothesis.settings.register_profile("ovd", deadline=None)
hypothesis.settings.load_profile("ovd")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where the servers must be there (OVD_INTEGRATION=required), a skipped test is a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and _required() and item.get_closest_marker("integration"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"must run here: {reason}"


def _required() -> bool:
    return os.environ.get("OVD_INTEGRATION") == "required"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the repository; the test is skipped without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared data in {folder}, which this checkout does not have")
    return folder
