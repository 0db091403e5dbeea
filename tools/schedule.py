"""How well xdist's schedulers keep many devices busy: its own classes, on simulated devices, in simulated time.

Each worker has a device of its own. A pair takes it for the seconds that a recorded run held the device, and for those
of building the FP32 source before, where the worker's last pair was of another model. The ideal is what no schedule
beats: all recorded seconds shared evenly, or the longest pair alone.

Run: ``python tools/schedule.py [--workers N] RESULTS.CSV``, on the table of a run without ``-n``; by default on the 64
pairs of the study, recorded on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from xdist.remote import Producer
from xdist.scheduler import LoadScheduling, WorkStealingScheduling

from pytest_vq.catalog.models import find_model
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.plugin.ordering import Weighed, expected_cost, workers_order
from pytest_vq.plugin.xdist import model_scheduling
from pytest_vq.schema.spec import Case, CaseId, scheme_name

RECORDED = Path(__file__).resolve().parent.parent / "tests" / "data" / "recorded-64-pairs.csv"
SHUTDOWN = None  # what xdist puts behind a worker's last test


@dataclass(frozen=True, slots=True)
class Task:
    """One pair of a recorded run."""

    model: str
    scheme: str
    batch: int
    build_s: float  # seconds of building its FP32 source, whichever pair of the model built it in that run
    held_s: float  # seconds for which it held the device

    @property
    def id(self) -> str:
        """What it is called among the tests."""
        return str(CaseId(self.model, self.scheme, self.batch))


@dataclass(slots=True)
class Worker:
    """A worker as xdist's schedulers see it, and what it does: a test begins once the one after it is known."""

    simulation: Simulation
    id: str
    shutting_down: bool = False
    queue: deque[int | None] = field(default_factory=deque)
    running: int | None = None
    built: str | None = None  # the model of its last pair
    ended: bool = False

    @property
    def gateway(self) -> SimpleNamespace:
        """Of xdist's worker only its name is asked for."""
        return SimpleNamespace(id=self.id)

    def __hash__(self) -> int:
        return hash(self.id)

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """The scheduler hands tests out."""
        self.queue.extend(indices)
        self.advance()

    def send_steal(self, indices: Sequence[int]) -> None:
        """The scheduler wants tests back: all of them or, where one has begun or comes next, none."""
        waiting = [index for index in itertools.islice(self.queue, self.running is None, None) if index in set(indices)]
        stolen = waiting if len(waiting) == len(indices) else []
        for index in stolen:
            self.queue.remove(index)
        self.simulation.later(0.0, lambda: self.simulation.unscheduled(self, stolen))

    def shutdown(self) -> None:
        """No test comes after those in the queue."""
        if not self.shutting_down:
            self.shutting_down = True
            self.queue.append(SHUTDOWN)
            self.advance()

    def advance(self) -> None:
        """Begin the next test, if there is one and it is known what comes after it."""
        if self.running is not None or self.ended or not self.queue:
            return
        if self.queue[0] is SHUTDOWN:
            self.ended = True
        elif len(self.queue) > 1:
            self.running = self.queue.popleft()
            assert self.running is not None
            self.simulation.begin(self, self.running)


class Simulation:
    """All tasks on so many workers under one of xdist's schedulers, in simulated time."""

    def __init__(self, tasks: Sequence[Task], workers: int, make_scheduler: Callable[[Any, Any], Any]) -> None:
        self._tasks = tasks
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.now_s = self.finished_s = self.building_s = 0.0
        self.done: list[str] = []
        settings = {"tx": [f"{workers}*popen"], "maxschedchunk": None}
        config = SimpleNamespace(getvalue=settings.__getitem__, getoption=settings.__getitem__)
        self._scheduler = make_scheduler(config, Producer("simulated", enabled=False))
        self._workers = [Worker(self, f"gw{number}") for number in range(workers)]

    def run(self) -> None:
        """Run them all, with what xdist's session does around its scheduler."""
        for worker in self._workers:
            self._scheduler.add_node(worker)
            self._scheduler.add_node_collection(worker, [task.id for task in self._tasks])
        self._scheduler.schedule()
        models = {task.model: number for number, task in enumerate(self._tasks)}
        self._scheduler.groups = [models[task.model] for task in self._tasks]  # only ours heeds it
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
            if self._scheduler.tests_finished:
                for worker in self._workers:
                    worker.shutdown()

    def later(self, after_s: float, event: Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        heapq.heappush(self._events, (self.now_s + after_s, next(self._numbers), event))

    def begin(self, worker: Worker, index: int) -> None:
        """A worker begins a task."""
        task = self._tasks[index]
        build_s = 0.0 if worker.built == task.model else task.build_s
        worker.built = task.model
        self.building_s += build_s
        self.later(build_s + task.held_s, lambda: self._finish(worker, index))

    def _finish(self, worker: Worker, index: int) -> None:
        worker.running, self.finished_s = None, self.now_s
        self.done.append(self._tasks[index].id)
        self._scheduler.mark_test_complete(worker, index, self._tasks[index].held_s)
        worker.advance()

    def unscheduled(self, worker: Worker, indices: Sequence[int]) -> None:
        """A worker gave tests back."""
        self._scheduler.remove_pending_tests_from_node(worker, indices)


def recorded_tasks(table: Path) -> list[Task]:
    """The pairs of a ``results.csv``, in its order. Raises ``ValueError`` where it does not say what they took."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    built = {row["model"]: float(row["build_s"]) for row in rows if row["build_s"]}
    tasks = []
    for row in rows:
        model, scheme = row["model"], scheme_name(row["precision"], row["execution"])
        if not row["device_held_s"] or model not in built:
            raise ValueError(f"{table}: {model} {scheme} lacks device_held_s, or build_s of its model's first pair")
        tasks.append(Task(model, scheme, int(row["batch"]), built[model], float(row["device_held_s"])))
    return tasks


def arranged(tasks: Iterable[Task], workers: int, cost_of: Callable[[Task], float | None]) -> list[Task]:
    """The tasks in the order that so many workers are given theirs in."""
    return workers_order([Weighed(task, task.model, cost_of(task)) for task in tasks], workers)


def expected(task: Task) -> float | None:
    """What the plugin expects a pair to take before anything was recorded."""
    return expected_cost(Case(find_model(task.model), find_scheme(task.scheme), task.batch))


def ideal_s(tasks: Sequence[Task], workers: int) -> float:
    """Seconds below which no schedule finishes: all work shared evenly, each model built once, or one pair alone."""
    built = {task.model: task.build_s for task in tasks}
    total_s = sum(task.held_s for task in tasks) + sum(built.values())
    return max(total_s / workers, max(task.build_s + task.held_s for task in tasks))


def main() -> None:
    """Print a row for each scheduler and order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", default=RECORDED)
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    tasks = recorded_tasks(given.table)
    ideal = ideal_s(tasks, given.workers)
    print(f"{len(tasks)} pairs on {given.workers} simulated devices; the ideal is {ideal:.1f} s")
    orders = {
        "as collected": tasks,
        "arranged by expectation": arranged(tasks, given.workers, expected),
        "arranged by what was recorded": arranged(tasks, given.workers, lambda task: task.held_s),
    }
    schedulers = {
        "ours": model_scheduling,
        "xdist's --dist=load": LoadScheduling,
        "xdist's worksteal": WorkStealingScheduling,
    }
    for order, ordered in orders.items():
        for name, make_scheduler in schedulers.items():
            simulation = Simulation(ordered, given.workers, make_scheduler)
            simulation.run()
            print(
                f"{order:30} {name:22} {simulation.finished_s:7.1f} s, of it building "
                f"{simulation.building_s:6.1f} s, efficiency {ideal / simulation.finished_s:.1%}"
            )


if __name__ == "__main__":
    main()
