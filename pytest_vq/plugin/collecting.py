"""Which tests there are: one for each selected pair, those with a callable, and what cannot be selected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from pytest_vq.catalog.models import all_models, select_models
from pytest_vq.device.target import find_target
from pytest_vq.errors import SelectionError, VqError
from pytest_vq.execution.schemes import Selected, select_schemes
from pytest_vq.plugin import benchmark, xdist
from pytest_vq.plugin.items import case_of, deselect, measured_by, uses
from pytest_vq.plugin.marker import check_marker
from pytest_vq.plugin.ordering import (
    CostOf,
    expected_cost,
    keep_pairs_together,
    model_groups,
    number_of,
    put_in_workers_order,
    test_of,
)
from pytest_vq.plugin.serving_tests import check_serving_marker, left_out
from pytest_vq.plugin.session import VqSession
from pytest_vq.plugin.sharding import MeasuringTest, keep_shard
from pytest_vq.precision.own_precisions import OF_RECIPES
from pytest_vq.precision.precisions import find_precision
from pytest_vq.processes.shards import expected_seconds
from pytest_vq.report.drawing import require_drawing
from pytest_vq.schema.spec import Case, ModelSpec, Target
from pytest_vq.wording import listed

_SHOWN = 3  # models in a message
_GATES = ("vq_bench", "vq_gate", "vq_serve")  # fixtures whose tests have a row and a verdict
# Raised inside torch, by torch's own modules: no user can do anything about it.
_TORCHS_OWN = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def check_usage(session: VqSession) -> None:
    """Refuse ``--gpu`` without a GPU and reports without their libraries, before anything is collected.

    Names of models and schemes are checked after collection, which imports the conftest files that may register them.
    """
    options, config = session.options, session.config
    if options.report and not xdist.is_worker(config):
        require_drawing()  # hours of measuring would end in its error otherwise
    # Whoever only hands tests out needs no GPU, and must not start CUDA: its workers see whether they have one.
    if options.gpu and not config.getoption("collectonly") and not xdist.will_distribute(config):
        from pytest_vq.device.device import require_accelerator

        require_accelerator()


def selected_schemes(session: VqSession) -> Selected:
    """The schemes of this run, of those that are registered by now.

    Raises ``SelectionError`` where there are none, or one cannot run on the device.
    """
    selected = select_schemes(session.options.precisions, _target(session))
    session.left_out = dict(selected.left_out)
    return selected


def _target(session: VqSession) -> Target:
    gpu = session.options.gpu
    if gpu and session.config.getoption("collectonly"):  # may be asked where there is no GPU: every scheme is listed
        return Target(is_accelerator=True)
    return find_target(gpu=gpu)


def select_cases(session: VqSession, module_default: str | None) -> list[Case]:
    """The pairs this run measures through one test, models first, then batches, then schemes; a recipe's model alone.

    Raises ``SelectionError`` for names that do not exist, and for a recipe whose model is not among those selected.
    """
    options = session.options
    local = any(model.is_local for model in all_models().values())
    text = options.models or module_default or ("local" if local else "default")
    models, schemes = select_models(text, accelerator=options.gpu), selected_schemes(session).schemes
    for scheme in schemes:
        if not any(scheme.suits(model) for model in models):
            named = listed([model.name for model in models], _SHOWN)
            raise SelectionError(f"{scheme.name} is a recipe for the model {scheme.intended_for}, not for {named}")
    _check_floors(models)
    cases = [
        Case(model, scheme, batch)
        for model in models
        for batch in options.batch
        for scheme in schemes
        if scheme.suits(model)
    ]
    _check_distinct(cases)
    return cases


def _check_floors(models: Iterable[ModelSpec]) -> None:
    """Refuse a model's floor for a precision that there is not: it would hold for nothing, without a word."""
    for model in models:
        for precision in model.min_sqnr_db:
            if not precision.startswith(OF_RECIPES):
                try:
                    find_precision(precision)
                except SelectionError as error:
                    raise SelectionError(f"min_sqnr_db of the model {model.name}: {error}") from error


def _check_distinct(cases: Iterable[Case]) -> None:
    """Refuse two pairs of one id: a model ``net`` at ``a-b``, and a model ``net-a`` at ``b``."""
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.id, case)
        if other is not case:
            raise SelectionError(
                f"two pairs are called {case.id}: {other.model.name} at {other.scheme.name}, and {case.model.name} at "
                f"{case.scheme.name}; register the model or the precision under another name"
            )


def check_selection(items: list[pytest.Item]) -> None:
    """Raise ``SelectionError`` for tests that ask for what cannot be."""
    for item in items:
        gates = [name for name in _GATES if uses(item, name)]
        if len(gates) > 1:
            raise SelectionError(f"{item.nodeid}: it uses {' and '.join(gates)}: a test has one row and one verdict")
        check_marker(item, of_callable=uses(item, "vq_gate"))
        check_serving_marker(item)
        if not item.config.pluginmanager.hasplugin("benchmark"):
            raise SelectionError(
                f"{item.nodeid}: {gates[0]} puts its samples into pytest-benchmark's table, and -p no:benchmark takes "
                "that plugin away; leave it out (--benchmark-disable switches its table off)"
            )


def in_catalog_order(items: Iterable[pytest.Item]) -> list[MeasuringTest]:
    """The tests among ``items`` that measure something, in an order that is the same however they were shuffled."""
    found = [MeasuringTest(item, case_id) for item in items if (case_id := measured_by(item)) is not None]

    def place(one: MeasuringTest) -> tuple[str, int, str]:
        return test_of(one.item), number_of(one.item) if case_of(one.item) else 0, one.item.nodeid

    return sorted(found, key=place)


def costs_of(items: Iterable[pytest.Item], known: Mapping[str, float]) -> CostOf:
    """What an item is expected to take: in seconds where some are ``known``, else by its model's size."""
    ids = {item.nodeid: case_id for item in items if (case_id := measured_by(item)) is not None}
    if known:
        seconds = dict(zip(ids, expected_seconds(list(ids.values()), known), strict=True))
        return lambda item: seconds[item.nodeid]

    def cost_of(item: pytest.Item) -> float | None:
        case = case_of(item)
        # Under load all take minutes, whatever the model.
        return None if case is None or ids[item.nodeid].serving else expected_cost(case)

    return cost_of


class CollectingHooks:
    """Hooks of every process that collects tests."""

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self._refused: VqError | None = None

    def check_usage(self) -> None:
        """Refuse what ``check_usage`` does; a worker can only say so once it has collected."""
        try:
            check_usage(self._session)
        except VqError as error:
            if not xdist.is_worker(self._session.config):
                raise
            self._refused = error

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One test per selected pair. An error is kept: raised here, pytest would exit with 2 instead of 4."""
        cases: list[Case] = []
        if self._refused is None:
            try:
                cases = select_cases(self._session, getattr(metafunc.module, "vq_models", None))
                if "vq_serve" in metafunc.fixturenames:  # whose requests are of one image each: the batcher joins them
                    cases = list(dict.fromkeys(replace(case, batch=1) for case in cases))
            except SelectionError as error:
                self._refused = error
        metafunc.parametrize("vq_case", cases, ids=[case.id for case in cases], indirect=True)

    @pytest.hookimpl(trylast=True)  # after whatever shuffles
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what was selected wrongly; show the rest to pytest-benchmark as benchmarks; put pairs in order."""
        self._leave_out_serving(items)
        ours = [item for item in items if any(uses(item, name) for name in _GATES)]
        try:
            if self._refused is not None:
                raise self._refused
            selected_schemes(self._session)  # also where no test takes pairs: a wrong name is never let pass
            check_selection(ours)
            if ours and (reason := xdist.distribution_refusal(self._session.config)):
                raise SelectionError(reason)
        except VqError as error:
            self._refuse(error, items)
            return
        for item in ours:
            benchmark.prepare(item, group=benchmark.group_of(measured_by(item)))
            item.add_marker(_TORCHS_OWN)
        if ours:
            benchmark.narrow_table(self._session.config)
        keep_pairs_together(items, case_of)
        try:
            keep_shard(self._session, items, in_catalog_order(ours))
        except VqError as error:
            self._refuse(error, items)
            return
        if xdist.is_worker(self._session.config):
            self._order_for_workers(items)

    def _leave_out_serving(self, items: list[pytest.Item]) -> None:
        serving_items = [item for item in items if uses(item, "vq_serve")]
        gone = left_out(self._session.config, self._session.options, serving_items)
        self._session.serving_left_out = len(gone)
        deselect(items, gone)

    def _order_for_workers(self, items: list[pytest.Item]) -> None:
        session = self._session
        measuring = [item for item in items if measured_by(item) is not None]
        session.places = {item.nodeid: place for place, item in enumerate(measuring)}
        put_in_workers_order(items, case_of, costs_of(items, session.durations), xdist.worker_count(session.config))
        session.groups = model_groups(items, case_of) if measuring else []
        xdist.tell_controller(session.config, session)

    def _refuse(self, error: VqError, items: list[pytest.Item]) -> None:
        items.clear()
        if not xdist.is_worker(self._session.config):
            raise pytest.UsageError(str(error)) from None
        xdist.refuse(self._session.config, str(error))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the pairs and callables: the gate's error is shared among them."""
        here = sum(measured_by(item) is not None for item in session.items)
        self._session.comparisons = here + self._session.elsewhere
