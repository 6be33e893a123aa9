"""One visible training loop on Lightning Fabric: seeded, resumable, one process or many."""

import csv
import difflib
import io
import itertools
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from replication import energy, paths
from replication.progress import bar


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the last checkpoint is kept."""


def start(seed: int, *, accelerator: str = "auto", devices: int = 1, precision: str = "auto",
          cuda: int = 0) -> Fabric:
    """A seeded Fabric. precision `auto`: bf16 autocast on a CUDA device that has it, else float32.

    Under torchrun the processes join; in a notebook there is one, on the CUDA device with the
    number `cuda`. A seed of -1 draws one.
    """
    if precision == "auto":
        cuda = accelerator != "cpu" and torch.cuda.is_available()
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    chosen = [cuda] if cuda and devices == 1 and accelerator != "cpu" else devices
    fabric = Fabric(accelerator=accelerator, devices=chosen, precision=precision)
    fabric.launch()
    seed_everything(seed)
    return fabric


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def optimise(fabric: Fabric, optimizer: torch.optim.Optimizer, loss: Tensor, batch: dict) -> None:
    """One step down `loss`, a mean over this process's items. Raises NonFiniteLoss before it.

    Several processes: each loss weighs as many items as its process holds, so the step is the
    one a single process would take on the whole batch.
    """
    finite = torch.isfinite(loss.detach()).all()
    if not finite:
        raise NonFiniteLoss(f"loss is {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    items = torch.tensor(float(len(next(iter(batch.values())))), device=loss.device)
    share = items / fabric.all_reduce(items, reduce_op="mean") if fabric.world_size > 1 else 1.0
    fabric.backward(loss * share)
    optimizer.step()


def average_gradients(fabric: Fabric, optimizer: torch.optim.Optimizer) -> None:
    """Makes every step of `optimizer` average its gradients over the processes first: for models
    that take several backward passes a step, which a DDP wrapper does not."""
    def average(optimizer, *_) -> None:
        for group in optimizer.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.grad = fabric.all_reduce(p.grad, reduce_op="mean")

    if fabric.world_size > 1:
        optimizer.register_step_pre_hook(average)


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def device_name(device: torch.device) -> str:
    """The accelerator's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the accelerator's memory, on the CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def energy_meter(device: torch.device) -> energy.Meter:
    """Of the device that a run computes on."""
    about = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return energy.meter(device.type, f"GPU-{getattr(about, 'uuid', '')}")


def energy_cost(run: "Run", device: torch.device) -> dict[str, float | str]:
    """The cost's fields of energy, over all epochs of training, those before an interruption too;
    empty where an epoch's is not known."""
    if not run.joules or len(run.joules) < len(run.history) or None in run.joules:
        return {}
    return {"energy_joules": round(sum(run.joules), 1),
            "energy_source": energy.SOURCES[device.type]}


def given(config: type, namespace: dict, also: Sequence[str] = ()) -> dict:
    """A notebook's variables that are fields of `config`.

    Plain papermill passes a misspelt parameter on with a warning: a variable that is neither a
    field nor in `also` but nearly spelt like one raises ValueError.
    """
    fields, near = [*config.__dataclass_fields__, *also], {}
    for name, value in namespace.items():
        plain = isinstance(value, str | int | float | list) and not name.startswith("_")
        if plain and name not in fields:
            near[name] = difflib.get_close_matches(name, fields, 1, 0.75)
    wrong = [f"no parameter {name}: did you mean {found[0]}?" for name, found in near.items()
             if found]
    if wrong:
        raise ValueError("; ".join(wrong))
    return {k: v for k, v in namespace.items() if k in config.__dataclass_fields__}


def chosen(config: type, namespace: dict, also: Sequence[str] = ()):
    """The Config that a notebook's variables give; raises ValueError naming bad ones."""
    try:
        return config(**given(config, namespace, also))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" if e["loc"] else
                 e["msg"].removeprefix("Value error, ") for e in error.errors()]
        raise ValueError("; ".join(wrong)) from None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode for the while (dropout off, running statistics of norms), then
    each of its parts in the mode that it had."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for part, mode in modes.items():
            part.training = mode


def precision_of(fabric: Fabric) -> str:
    """Fabric's precision in its own words, as `bf16-mixed`."""
    return str(fabric.strategy.precision.precision)


def distributed() -> bool:
    """True in a process that torchrun started."""
    return "LOCAL_RANK" in os.environ


def launch(module: str, config: dict, devices: int) -> None:
    """Runs `python -m module` in `devices` processes of this machine under torchrun, which read
    `config` with `launched_config`. A notebook's own kernel is never forked: that breaks CUDA.

    Raises RuntimeError with the last lines when a process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   f"--nproc_per_node={devices}", "-m", module]
        environment = {**os.environ, "REPLICATION_CONFIG": str(file)}
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-12:])
        raise RuntimeError(f"training on {devices} devices failed:\n{tail}")


def launched_config() -> dict:
    """The configuration that `launch` gave to this process."""
    return json.loads(Path(os.environ["REPLICATION_CONFIG"]).read_text())


class Run:
    """A folder that holds one training run: checkpoint, log, best weights.

    key: what the run is (its parameters). A folder that holds a run of another key is moved aside
    to `<folder>.earlier-<n>`, never overwritten.
    """

    def __init__(self, folder: Path, key: dict):
        self.folder, self.key = Path(folder), json.loads(json.dumps(key, sort_keys=True))
        self.epoch, self.history, self.best, self._state = 0, [], {}, None
        self.joules: list[float | None] = []  # of each epoch
        if self.checkpoint.exists():
            self._state = _load_checkpoint(self.checkpoint)
            if self._state["key"] != self.key:
                self._move_aside()
        paths.writable_folder(self.folder)

    @property
    def checkpoint(self) -> Path:
        """The file from which a killed run continues."""
        return self.folder / "checkpoint.pt"

    def _move_aside(self) -> None:
        old, self._state = self._state["key"], None
        differ = sorted(k for k in {*old, *self.key} if old.get(k) != self.key.get(k))
        names = (f"{self.folder.name}.earlier-{n}" for n in itertools.count(1))
        free = next(f for f in map(self.folder.with_name, names) if not f.exists())
        self.folder.rename(free)
        print(f"{paths.shown(self.folder)} held a run with other {', '.join(differ)}: "
              f"moved to {free.name}")

    def restore(self, modules: dict[str, nn.Module], optimizers: dict) -> None:
        """Puts a stored state back: weights, optimisers, random states, epoch, history."""
        if self._state is None:
            return
        for name, module in modules.items():
            load_trainable(module, self._state["modules"][name])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(self._state["optimizers"][name])
        self.epoch, self.history = self._state["epoch"], json.loads(self._state["history"])
        self.best = json.loads(self._state["best"])
        self.joules = json.loads(self._state.get("joules", "[]"))
        _set_random_state(self._state["random"])
        self._state = None

    def save(self, modules: dict[str, nn.Module], optimizers: dict) -> None:
        """Writes the checkpoint under a temporary name and moves it into place."""
        state = {"key": self.key, "epoch": self.epoch, "history": json.dumps(self.history),
                 "best": json.dumps(self.best), "joules": json.dumps(self.joules),
                 "random": _random_state(),
                 "modules": {name: trainable(m) for name, m in modules.items()},
                 "optimizers": {name: o.state_dict() for name, o in optimizers.items()}}
        paths.save_file(self.checkpoint, lambda file: torch.save(state, file))
        text = io.StringIO()
        columns = dict.fromkeys(k for row in self.history for k in row)
        writer = csv.DictWriter(text, list(columns) or ["epoch"])
        writer.writeheader()
        writer.writerows(self.history)
        paths.write_atomic(self.folder / "log.csv", text.getvalue())

    def keep_if_best(self, selection: str, value: float, write: Callable[[Path], object]) -> None:
        """Writes `<selection>.safetensors` when `value` (higher is better) is the best so far."""
        if value > self.best.get(selection, {}).get("value", float("-inf")):
            paths.save_file(self.weights(selection), write)
            self.best[selection] = {"value": value, "epoch": self.epoch}

    def weights(self, selection: str) -> Path:
        """The file of a selection's weights."""
        return self.folder / f"{selection}.safetensors"


def fit(fabric: Fabric, run: Run, modules: dict[str, nn.Module], optimizers: dict,
        batches_of: Callable[[int], Sized], step: Callable[[dict], dict[str, Tensor]], *,
        epochs: int, after_epoch: Callable[[int], dict[str, float]] = lambda epoch: {},
        progress: bool = True) -> list[dict[str, float]]:
    """Trains to the end of `epochs`, from the run's checkpoint where there is one.

    batches_of(epoch): that epoch's batches, the same whenever it is asked for. step(batch): one
    optimisation, returns the loss terms. after_epoch(epoch): figures for the log, once the weights
    of that epoch stand; called in the first process only. Returns one row an epoch: epoch, mean
    terms, seconds, figures. Raises NonFiniteLoss with epoch, step and batch; the last checkpoint
    is kept.
    """
    run.restore(modules, optimizers)
    progress, meter = progress and fabric.is_global_zero, energy_meter(fabric.device)
    for epoch in range(run.epoch, epochs):
        meter.begin()
        began, sums, count = time.perf_counter(), {}, 0
        loader = batches_of(epoch)
        with bar(total=len(loader), label=f"epoch {epoch + 1}/{epochs}", unit="batch",
                 shown=progress) as shown:
            for number, batch in enumerate(loader):
                terms = _step(step, to_device(batch, fabric.device), epoch, number, run)
                items = len(next(iter(batch.values())))
                sums = {k: sums.get(k, 0) + items * v.detach() for k, v in terms.items()}
                count += items
                meter.poll()
                if shown.update():
                    shown.set_postfix_str(f"loss {terms['loss'].item():.3f}", refresh=False)
        seconds = time.perf_counter() - began
        joules = _joules(fabric, meter.joules())
        run.epoch = epoch + 1
        row = {"epoch": epoch + 1, **_means(fabric, sums, count), "seconds": seconds}
        if fabric.is_global_zero:
            run.joules.append(joules)
            run.history.append(row | after_epoch(epoch))
            run.save(modules, optimizers)
        fabric.barrier()
    return run.history


def _means(fabric: Fabric, sums: dict[str, Tensor], count: int) -> dict[str, float]:
    """Means over the items of all processes."""
    if not sums:
        return {}
    total = torch.stack([*sums.values(), torch.as_tensor(float(count), device=fabric.device)])
    total = fabric.all_reduce(total, reduce_op="sum") if fabric.world_size > 1 else total
    return dict(zip(sums, (total[:-1] / total[-1]).tolist(), strict=True))


def _joules(fabric: Fabric, own: float | None) -> float | None:
    """Joules of all GPUs; of a processor, which all processes share, the first process's."""
    if fabric.world_size == 1 or fabric.device.type == "cpu":
        return own
    each = torch.tensor(math.nan if own is None else own, device=fabric.device)
    total = fabric.all_reduce(each, reduce_op="sum").item()
    return total if math.isfinite(total) else None


def _step(step, batch: dict, epoch: int, number: int, run: Run) -> dict[str, Tensor]:
    try:
        return step(batch)
    except NonFiniteLoss as error:
        rows = batch["row"].tolist() if "row" in batch else []
        kept = f"{paths.shown(run.checkpoint)} holds epoch {run.epoch}" if run.epoch else \
            "no epoch was complete"
        raise NonFiniteLoss(f"{error} in epoch {epoch + 1}, step {number + 1}, items {rows[:8]}; "
                            f"{kept}. Lower the learning rate, or look at these items") from None


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on the device, copied without waiting."""
    return {k: v.to(device, non_blocking=True) for k, v in batch.items()}


# ---------------------------------------------------------------------------- states and files


def trainable(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes: parameters with a gradient, and the running statistics
    of norms in training mode. The rest come with the backbone's weights: a checkpoint is small."""
    module = _unwrapped(module)
    kept = {k: p for k, p in module.named_parameters() if p.requires_grad}
    for name, part in module.named_modules():
        if part.training and getattr(part, "track_running_stats", False):
            kept |= {f"{name}.{k}": b for k, b in part.named_buffers(recurse=False)}
    return {k: v.detach().cpu().clone() for k, v in kept.items()}


def load_trainable(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Sets the trainable parameters and the buffers; ValueError names what is absent or of another
    shape."""
    module = _unwrapped(module)
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    wrong = [k for k, v in state.items() if k not in own or own[k].shape != v.shape]
    wrong += [k for k, p in own.items() if p.requires_grad and k not in state]
    if wrong:
        raise ValueError(f"the checkpoint is of another model: {', '.join(sorted(wrong)[:6])}")
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def _unwrapped(module: nn.Module) -> nn.Module:
    return getattr(module, "_original_module", module)


def write_tensors(tensors: dict[str, Tensor], file: Path, header: dict[str, str] | None = None
                  ) -> None:
    """safetensors' `save_file`, with the OSError of other writers when the disk is full."""
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file, header)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_weights(module: nn.Module, about: dict, file: Path) -> None:
    """Trainable tensors as safetensors, with `about` (JSON) in the file's header."""
    write_tensors(trainable(module), file, {"about": json.dumps(about, sort_keys=True)})


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, about) of a file that `write_weights` made. Raises ValueError for any other."""
    try:
        with safe_open(file, "pt") as stored:
            about = json.loads((stored.metadata() or {})["about"])
            return {k: stored.get_tensor(k) for k in stored.keys()}, about  # noqa: SIM118
    except Exception as error:  # safetensors raises its own kind
        raise ValueError(f"{paths.shown(file)} is not a checkpoint of this project "
                         f"({str(error)[:80]})") from error


def _random_state() -> dict:
    python, numpy = random.getstate(), np.random.get_state()
    return {"python": [python[0], list(python[1])], "torch": torch.get_rng_state(),
            "numpy": [numpy[0], torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:]],
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _set_random_state(state: dict) -> None:
    random.setstate((state["python"][0], tuple(state["python"][1]), None))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _load_checkpoint(file: Path) -> dict:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn or foreign file
        raise ValueError(f"{paths.shown(file)} cannot be read ({str(error).splitlines()[0][:80]}): "
                         "remove it to start this run anew") from error
