"""Communication between the processes of a training, through accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor

from layeralign._util.text import printable
from layeralign.errors import LayeralignError


class Workers:
    """The processes of one `accelerate launch`, or the only process without it.

    Each process computes its share of a step's rows, losses are divided by counts over all processes, and
    gradients are summed. The update is therefore that of one process, and no wrapper of the model is needed.
    """

    def __init__(self) -> None:
        """Find the other processes.

        Raises:
            LayeralignError: a variable of the launcher has a value that is none.
        """
        try:
            self._state = PartialState(cpu=not torch.cuda.is_available())
        except ValueError as error:  # of the launcher's variables
            raise LayeralignError(
                f"align: the launcher's variables are not usable ({printable(str(error), 200)}); correct or "
                "unset WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"
            ) from error
        self.rank, self.size = self._state.process_index, self._state.num_processes

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return bool(self.rank == 0)

    def share(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share of the rows."""
        return rows[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes."""
        if self.size == 1:
            return values
        total: Tensor = reduce(values, "sum")
        return total

    def total(self, *values: float) -> list[float]:
        """Return plain numbers, each summed over processes."""
        made = torch.tensor(values, dtype=torch.float64, device=self._state.device)
        return [float(value) for value in self.sum(made)]

    def gather(self, values: list[Any]) -> list[Any]:
        """Return the lists of all processes, concatenated."""
        return values if self.size == 1 else list(gather_object(values))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum each gradient over processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def first(self, do: Callable[[], None]) -> None:
        """Call a function in the main process only; its error is raised in every process.

        Raises:
            LayeralignError: the main process raised this error.
        """
        errors: list[str] = []
        if self.main:
            try:
                do()
            except LayeralignError as error:
                errors.append(str(error))
        for message in self.gather(errors):
            raise LayeralignError(message)

    def wait(self) -> None:
        """Wait until every process has arrived here."""
        self._state.wait_for_everyone()
