"""What all tests share: one thread, a cache of their own, real data where they are there, no plugins left behind."""

import os
from pathlib import Path

import pytest

# Before torch is loaded: two processes that train side by side would otherwise spin at each other's expense.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch._inductor.config

from oodbench import registry


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """A cache folder of this session, so that no test reads or writes the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory) -> str:
    """A suite whose classifier is trained in no time, for tests that begin with an empty cache."""
    file = tmp_path_factory.mktemp("suites") / "tiny.toml"
    file.write_text(
        'name = "tiny"\nversion = 1\nknown = "digits"\nseeds = [0]\n[unknown]\nnoise = { n = 120 }\n[input]\nsize = 8\n'
        "[sizes]\ntrain = 120\nmeta = 60\ntest = 60\n[training]\nepochs = 2\n"
    )
    return str(file)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not os.environ.get("OODBENCH_DATA"):
        pytest.skip("OODBENCH_DATA is not set: the folder of real data is needed (see CONTRIBUTING.md)")
    return Path(os.environ["OODBENCH_DATA"])


@pytest.fixture(autouse=True)
def plugins_are_forgotten():
    """Plugins that a test declares are gone after it."""
    with registry.scoped():
        yield


def pytest_terminal_summary(terminalreporter):
    """How many inputs were tried, where files are read that anybody may have made."""
    for report in terminalreporter.getreports("passed"):
        for name, tried in report.user_properties:
            if name == "fuzzed":
                terminalreporter.line(f"fuzzed: {', '.join(f'{n:,} {what}' for what, n in tried.items())}")
