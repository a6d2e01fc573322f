"""The machines of a Ray cluster."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pnpx.engines.base import Engine, Job, Saved, Tally, work
from pnpx.parameters import require_count


@dataclass(frozen=True)
class Ray(Engine):
    """The machines of a Ray cluster (Moritz et al., 2018, arXiv:1712.05889), or several processes on this one.

    All machines must share a folder, such as a network drive, at the same path: the configuration, what it names and
    the results must lie there, as nothing else brings results back. pnpx, and the modules that the configuration names,
    must be installed on each, or lie beside the configuration. A job takes one of the processor cores that Ray counts.

    If this process is connected to a cluster already, that one is used and stays connected, whatever ``address`` says.

    Args:
        address: of the cluster, such as ``"10.0.0.1:6379"`` or ``"ray://10.0.0.1:10001"``, or "auto" for that of this
            machine; None: processes of this machine alone, which end with the run. (Ray lets them listen on the network
            all the same; where that must not be, `Local` does not.)
        workers: how many jobs are done at the same time; None: as many as there are cores.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.address is not None and not isinstance(self.address, str):
            raise TypeError(f"address must be text or None, but got {self.address!r}")
        if self.workers is not None:
            require_count("workers", self.workers, 1)

    def explain(self, jobs: Sequence[Job], advance: Callable[[int], object]) -> set[Saved]:
        tally, waiting, running = Tally(advance), deque(jobs), dict[Any, Job]()
        if not jobs:
            return tally.close(0)
        ray = import_ray()
        with self._connected(ray):
            at_once = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            # What is lost the run itself makes; tried again here, it would only take another worker along.
            remote = ray.remote(num_cpus=1, max_retries=0)(work)
            try:
                while waiting or running:
                    while waiting and len(running) < at_once:
                        job = waiting.popleft()
                        running[remote.remote(job)] = job
                    done, _ = ray.wait(list(running), num_returns=1)
                    for reference in done:
                        job = running.pop(reference)
                        try:
                            outcome = ray.get(reference)
                        except Exception as error:  # the job's own, or that of its worker or machine
                            outcome = _in_short(error)
                        tally.note(job, outcome)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)
        return tally.close(len(jobs))

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """The cluster, disconnected afterwards if it was not connected before."""
        if ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            # A Ray of its own, even where a cluster runs beside it, that tells nobody how it is used.
            options = {"address": "local", "num_cpus": self.workers, "include_dashboard": False}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of any kind, by what the address is
            where = "a Ray of its own" if self.address is None else f"the Ray cluster at {self.address!r}"
            raise ConnectionError(f"{where} cannot be reached: {_in_short(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


def import_ray() -> Any:
    """The package ray; ImportError that says what to install without it."""
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError(
            "the engine 'ray' needs ray, which is not installed; install it: pip install ray, or pip install '.[ray]' "
            "for pnpx with all that it takes"
        ) from error


def _in_short(error: Exception) -> str:
    """What a job was lost to: of an error in the worker that itself, which Ray gives as its cause."""
    told = getattr(error, "cause", None) or error
    return f"{type(told).__name__}: {str(told).strip().partition(chr(10))[0]}"
