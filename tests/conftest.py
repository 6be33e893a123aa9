"""What every test shares: the checkout's folder, and a process that cannot reach the network."""

import os
import socket
from pathlib import Path

import pytest

# Before any library is imported: no window for plots, no look-up for weights.
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"

REPO = Path(__file__).resolve().parent.parent
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout that is tested."""
    return REPO


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse connections that leave the machine, so that a test cannot come to depend on one."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(LOCAL):
            raise OSError(f"tests have no network: connection to {address} refused")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def doodles(tmp_path_factory) -> Path:
    """A data root with a tiny set of the built-in doodles: 4 instances a class, 1 sketch each."""
    from data_prep.doodles import draw_dataset

    root = tmp_path_factory.mktemp("data")
    draw_dataset(root, seed=0, per_class=4, size=32, sketches=1, workers=1)
    return root


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """A pixel cache of the test's own."""
    from replication import paths

    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"
