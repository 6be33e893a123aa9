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
