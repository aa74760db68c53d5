"""How the processes of a run reach each other: torch.distributed, over gloo.

What comes over it is unpickled, by torch: it comes from a process of the same job, which found its way here through the
launcher's MASTER_ADDR and MASTER_PORT, as the ranks of any training do. Nothing else listens to the network.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

FOREVER = timedelta(days=365)
"""How long gloo waits for a message: a task may take days, and who is gone is seen otherwise."""


class Lost(Exception):
    """The other process cannot be reached any more."""


class Line:
    """The connections of one process, once the group is made.

    Threads may use it side by side; the main one may not, which a signal's exception can meet within a message.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._turns = [threading.Lock() for _ in range(size)]

    def send(self, to: int, message: object) -> None:
        """Send an object to a rank, and wait until it takes it.

        Raises:
            Lost: it is gone.
        """
        import torch.distributed as dist

        with self._turns[to]:
            try:
                dist.send_object_list([message], dst=to)
            except RuntimeError as fault:
                raise Lost from fault

    def receive(self, source: int) -> Any:
        """Wait for the next object of a rank; by one thread for each. Errors as `send`."""
        import torch.distributed as dist

        found: list[Any] = [None]
        try:
            dist.recv_object_list(found, src=source)
        except RuntimeError as fault:
            raise Lost from fault
        return found[0]

    def spread(self, thing: object = None) -> Any:
        """Give an object of rank 0 to all: it is pickled once. All ranks call this together. Errors as `send`."""
        import torch.distributed as dist

        found = [thing]
        try:
            dist.broadcast_object_list(found, src=0)
        except RuntimeError as fault:
            raise Lost from fault
        return found[0]
