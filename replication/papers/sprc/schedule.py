"""The one-cycle schedule of SPRC's training, resumable."""

import warnings
from collections.abc import Callable

import torch

from replication.papers.sprc.config import Config


def one_cycle(optimizer: torch.optim.Optimizer, config: Config, n_batches: int
              ) -> Callable[[int], None]:
    """A function from a step's number to nothing, which sets that step's learning rate and, as
    torch's OneCycleLR does by default and so the released code too, Adam's first beta (0.95 to 0.85
    and back). A continued run goes through the steps that are behind it.

    n_batches: of an epoch. Steps beyond the cycle keep its last rate.
    """
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, steps_per_epoch=n_batches, **config.cycle)
    last = cycle.total_steps - 1

    def at(step: int) -> None:
        if step < cycle.last_epoch:
            raise ValueError(f"step {step} is behind step {cycle.last_epoch} of the schedule")
        with warnings.catch_warnings():  # a continued run's steps lie behind it: torch misses them
            warnings.simplefilter("ignore", UserWarning)
            while cycle.last_epoch < min(step, last):
                cycle.step()

    return at
