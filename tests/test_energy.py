"""Energy from the device's counters: a fake sysfs folder, a fake NVML, and no counter at all."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric

from replication import energy, training
from replication.energy import Counter, Meter
from replication.records import Cost


def a_zone(folder, name, kind, microjoules, span=5_000_000):
    """One zone of /sys/class/powercap; the file of its counter."""
    zone = folder / name
    zone.mkdir(parents=True)
    for file, value in (("name", kind), ("energy_uj", microjoules), ("max_energy_range_uj", span)):
        (zone / file).write_text(f"{value}\n")
    return zone / "energy_uj"


def told(*readings):
    """A counter that gives one reading after the other."""
    left = list(readings)
    return Counter(lambda: left.pop(0), 10.0)


class NVMLError(Exception):
    pass


def a_nvml(monkeypatch, **functions):
    """Stands in for the package: one GPU that used 1,500 mJ."""
    def handle(uuid):
        if uuid != "GPU-1":
            raise NVMLError(f"no {uuid}")
        return "first"

    known = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": handle,
             "nvmlDeviceGetTotalEnergyConsumption": {"first": 1500}.__getitem__}
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**known | functions))


def failing(*_):
    raise NVMLError("not supported")


def test_packages_are_added_up_and_their_parts_and_the_platform_are_not(tmp_path):
    one = a_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    two = a_zone(tmp_path, "intel-rapl:1", "package-1", 4_000_000)
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys")):
        a_zone(tmp_path, name, kind, 0)
    (tmp_path / "intel-rapl").mkdir()
    meter = Meter(energy.rapl(tmp_path))
    one.write_text("3_500_000\n".replace("_", ""))
    two.write_text("1000000\n")  # started anew at 5 J
    assert len(meter.counters) == 2
    assert meter.joules() == pytest.approx(2.5 + 2.0)


@pytest.mark.parametrize("damage", ["absent", "empty", "unreadable", "text"])
def test_a_processor_that_tells_nothing_has_no_counter(tmp_path, damage):
    file = a_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    a_zone(tmp_path, "intel-rapl:1", "package-1", 1)
    if damage == "empty":
        file.write_text("")
    elif damage == "unreadable":
        file.unlink()
        file.mkdir()
    elif damage == "text":
        (file.parent / "max_energy_range_uj").write_text("much")
    assert energy.rapl(tmp_path / "no" if damage == "absent" else tmp_path) == []


def test_a_gpu_is_found_by_its_uuid_and_told_in_joules(monkeypatch):
    a_nvml(monkeypatch)
    (counter,) = energy.nvml("GPU-1")
    assert counter.joules() == 1.5 and counter.span == math.inf
    assert energy.nvml("GPU-2") == []
    assert len(energy.meter("cuda", "GPU-1").counters) == 1


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetTotalEnergyConsumption"])
def test_a_gpu_without_driver_or_counter_is_none(monkeypatch, name):
    a_nvml(monkeypatch, **{name: failing})
    assert energy.nvml("GPU-1") == []


def test_without_the_package_nothing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.meter("cuda", "GPU-1").joules() is None


def test_a_kind_of_device_without_counters_is_none():
    assert energy.meter("mps").joules() is None


def test_each_begin_starts_at_zero_and_a_wrap_is_made_up():
    meter = Meter([told(8.0, 9.0, 1.0, 2.0, 5.0)])
    assert meter.joules() == 1.0
    assert meter.joules() == 3.0
    meter.begin()
    assert meter.joules() == 3.0


def test_a_poll_reads_once_in_a_while(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    meter = Meter([told(0.0, 6.0, 2.0)])
    meter.poll()
    now[0] = energy.EVERY
    meter.poll()  # reads 6
    meter.poll()
    now[0] += energy.EVERY - 0.1
    meter.poll()
    assert meter.joules() == pytest.approx(12.0)  # reads 2, after 10: two readings see the wrap


def test_a_reading_that_fails_leaves_that_time_unknown_and_not_the_next():
    readings = [1.0, OSError(), 4.0, 5.0, 7.0]

    def read():
        value = readings.pop(0)
        if isinstance(value, OSError):
            raise value
        return value

    meter = Meter([Counter(read)])
    assert meter.joules() is None
    assert meter.joules() is None
    meter.begin()
    assert meter.joules() == 2.0


def test_a_counter_that_goes_back_without_a_span_is_unknown():
    assert Meter([Counter(iter([9.0, 1.0]).__next__)]).joules() is None


# ------------------------------------------------------------------------------- in the training


def trained(folder, epochs) -> training.Run:
    fabric = Fabric(accelerator="cpu", devices=1)
    model = torch.nn.Linear(2, 1)
    adam = torch.optim.SGD(model.parameters(), lr=0.1)
    run = training.Run(folder, {"of": "energy"})
    training.fit(fabric, run, {"model": model}, {"adam": adam},
                 lambda epoch: [{"x": torch.ones(3, 2)}] * 2,
                 lambda batch: {"loss": model(batch["x"]).sum()}, epochs=epochs, progress=False)
    return run


@pytest.fixture
def counter(monkeypatch):
    """2 J from reading to reading."""
    readings = iter(range(0, 1000, 2))
    monkeypatch.setattr(energy, "rapl", lambda: [Counter(lambda: float(next(readings)))])


CPU = torch.device("cpu")


def test_every_epoch_counts_those_before_an_interruption_too(counter, tmp_path):
    first = trained(tmp_path, 1)
    assert training.energy_cost(first, CPU) == {"energy_joules": 2.0,
                                                "energy_source": energy.SOURCES["cpu"]}
    more = trained(tmp_path, 3)
    assert more.joules == [2.0, 2.0, 2.0]
    assert Cost(**training.energy_cost(more, CPU)).energy_joules == 6.0
    assert "joules" not in more.history[0]


def test_a_long_epoch_is_polled_on_its_way(counter, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "EVERY", 0.0)
    assert trained(tmp_path, 1).joules == [6.0]  # two batches and the end


def test_an_epoch_that_is_not_known_leaves_the_run_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "rapl", list)
    run = trained(tmp_path / "never", 1)
    assert run.joules == [None] and training.energy_cost(run, CPU) == {}
    run.joules, run.history = [1.0], [{}, {}]  # continued from a checkpoint without
    assert training.energy_cost(run, CPU) == {}
    run.joules, run.history = [], []
    assert training.energy_cost(run, CPU) == {}


def test_a_checkpoint_of_before_still_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "rapl", list)
    run = trained(tmp_path, 1)
    state = torch.load(run.checkpoint, weights_only=True)
    del state["joules"]
    torch.save(state, run.checkpoint)
    again = trained(tmp_path, 2)
    assert len(again.history) == 2 and training.energy_cost(again, CPU) == {}


@pytest.mark.parametrize(("kind", "own", "total"), [
    ("cpu", 3.0, 3.0), ("cuda", 3.0, 6.0), ("cuda", None, None)])
def test_gpus_are_added_up_and_a_shared_processor_is_counted_once(kind, own, total):
    fabric = SimpleNamespace(world_size=2, device=CPU,
                             all_reduce=lambda value, reduce_op: {"sum": value * 2}[reduce_op])
    if kind == "cuda":
        fabric.device = SimpleNamespace(type="cuda")
    made = torch.tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.torch, "tensor", lambda value, device: made(value))
        assert training._joules(fabric, own) == total


def test_the_gpu_of_the_run_is_asked_by_its_uuid(monkeypatch):
    asked = []
    monkeypatch.setattr(energy, "nvml", lambda uuid: asked.append(uuid) or [])
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda device: SimpleNamespace(uuid=f"uuid-of-{device}"))
    training.energy_meter(torch.device("cuda", 1))
    assert asked == ["GPU-uuid-of-cuda:1"]


def test_a_cost_without_energy_is_valid_and_a_negative_one_is_not():
    assert Cost.model_validate({"seconds_train": 1.0}).energy_joules is None
    with pytest.raises(ValueError):
        Cost(energy_joules=-1.0)
