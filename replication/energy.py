"""Energy by the device's own counter: a GPU's through NVML, a processor's through Linux's RAPL.

Never fails: where the device tells nothing, the energy is None. Never imports torch.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RAPL = Path("/sys/class/powercap")
# What each kind of device's counter counts, as records name it.
SOURCES = {"cuda": "NVML, the GPU alone", "cpu": "RAPL, the whole processor"}
EVERY = 5.0  # seconds; at 500 W the smallest RAPL counters start anew after two minutes


@dataclass(frozen=True)
class Counter:
    """`joules()` only goes up, but for starting anew at 0 when it has reached `span`."""

    joules: Callable[[], float]
    span: float = math.inf


class Meter:
    """Joules of all counters together since `begin()`."""

    def __init__(self, counters: list[Counter]):
        self.counters = counters
        self.begin()

    def begin(self) -> None:
        """Starts at 0."""
        self._sum, self._last = 0.0, self._read()

    def poll(self) -> None:
        """To be called often: a counter that starts anew twice between two readings loses one."""
        if self.counters and time.monotonic() - self._when >= EVERY:
            self._add()

    def joules(self) -> float | None:
        """Joules until now; None where there is no counter or a reading failed."""
        self._add()
        return self._sum if self._last else None

    def _add(self) -> None:
        now = self._read()
        for counter, before, after in zip(self.counters, self._last, now, strict=False):
            self._sum += after - before + (counter.span if after < before else 0.0)
        self._last = now if self._last and math.isfinite(self._sum) else []

    def _read(self) -> list[float]:
        self._when = time.monotonic()
        try:
            return [counter.joules() for counter in self.counters]
        except Exception:  # NVML has a class of its own for each error
            return []


def meter(kind: str, uuid: str = "") -> Meter:
    """A meter of a device of torch's kind: `cuda`, with its UUID, or `cpu`."""
    counters = {"cuda": lambda: nvml(uuid), "cpu": rapl}.get(kind, list)()
    return Meter(counters)


def rapl(folder: Path = RAPL) -> list[Counter]:
    """A counter a processor package; empty where one cannot be read (most systems let only the
    administrator). Counts whatever the processor does, other programs too."""
    packages = [zone for zone in sorted(folder.glob("intel-rapl:*"))
                if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    try:
        packages = [z for z in packages if (z / "name").read_text().startswith("package")]
        return [_package(zone) for zone in packages]
    except (OSError, ValueError):
        return []


def _package(zone: Path) -> Counter:
    """Of files in microjoules."""
    def joules(name: str = "energy_uj") -> float:
        return int((zone / name).read_text()) / 1e6

    joules()
    return Counter(joules, joules("max_energy_range_uj"))


def nvml(uuid: str) -> list[Counter]:
    """The counter of the GPU with that UUID (`GPU-...`); empty without the package nvidia-ml-py,
    and for a device that has none (before Volta, a part of a GPU)."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid)

        def joules() -> float:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3  # of millijoules

        joules()
        return [Counter(joules)]
    except Exception:  # not installed, no driver, no such device, not told
        return []
