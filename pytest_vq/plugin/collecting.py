"""Which tests there are: one for each selected pair, and what cannot be selected."""

from __future__ import annotations

import pytest

from pytest_vq.catalog.models import all_models, select_models
from pytest_vq.errors import SelectionError
from pytest_vq.execution.schemes import select_schemes
from pytest_vq.plugin import benchmark, xdist
from pytest_vq.plugin.marker import check_marker
from pytest_vq.plugin.session import VqSession
from pytest_vq.report.drawing import require_drawing
from pytest_vq.schema.spec import Case

# Raised inside torch, by torch's own modules: no user can do anything about it.
_TORCHS_OWN = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def check_usage(session: VqSession) -> None:
    """Refuse unknown schemes, ``--gpu`` without a GPU and reports without their libraries, before all is collected.

    Names of models are checked after collection, which imports the conftest files that may register them.
    """
    options = session.options
    select_schemes(options.precisions)
    if options.report:
        require_drawing()  # hours of measuring would end in its error otherwise
    if options.gpu and not session.config.getoption("collectonly"):
        from pytest_vq.device.device import require_accelerator

        require_accelerator()


def select_cases(session: VqSession, module_default: str | None) -> list[Case]:
    """The pairs this run measures through one test, models first, then batches, then schemes."""
    options = session.options
    local = any(model.is_local for model in all_models().values())
    text = options.models or module_default or ("local" if local else "default")
    return [
        Case(model, scheme, batch)
        for model in select_models(text, accelerator=options.gpu)
        for batch in options.batch
        for scheme in select_schemes(options.precisions)
    ]


def case_of(item: pytest.Item) -> Case | None:
    """The pair that ``item`` measures, if it measures one."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("vq_case") if callspec else None
    return case if isinstance(case, Case) else None


def check_selection(items: list[pytest.Item]) -> None:
    """Raise ``SelectionError`` for tests that ask for what cannot be."""
    for item in items:
        check_marker(item)
        if not item.config.pluginmanager.hasplugin("benchmark"):
            raise SelectionError(
                f"{item.nodeid}: vq_bench puts its samples into pytest-benchmark's table, and -p no:benchmark takes "
                "that plugin away; leave it out (--benchmark-disable switches its table off)"
            )


def keep_pairs_together(items: list[pytest.Item]) -> None:
    """Put the pairs of each test in the order they were made in (a model's together), in the places they have.

    A model is built once for all its pairs that follow each other; shuffled, it is built for nearly each of them.
    """
    places = [place for place, item in enumerate(items) if case_of(item) is not None]
    tests = [_test_of(items[place]) for place in places]
    ordered = sorted((items[place] for place in places), key=lambda item: (tests.index(_test_of(item)), _number(item)))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _test_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _number(item: pytest.Item) -> int:
    """Which of its test's pairs an item is, in catalog order."""
    number: int = item.callspec.indices["vq_case"]  # type: ignore[attr-defined]
    return number


class CollectingHooks:
    """Hooks of every process that collects tests."""

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self._refused: SelectionError | None = None

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One test per selected pair. An error is kept: raised here, pytest would exit with 2 instead of 4."""
        try:
            cases = select_cases(self._session, getattr(metafunc.module, "vq_models", None))
        except SelectionError as error:
            self._refused = error
            cases = []
        metafunc.parametrize("vq_case", cases, ids=[case.id for case in cases], indirect=True)

    @pytest.hookimpl(trylast=True)  # after whatever shuffles
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what was selected wrongly; show the rest to pytest-benchmark as benchmarks; put pairs in order."""
        ours = [item for item in items if "vq_bench" in getattr(item, "fixturenames", ())]
        try:
            if self._refused is not None:
                raise self._refused
            check_selection(ours)
        except SelectionError as error:
            self._refuse(error, items)
            return
        for item in ours:
            case = case_of(item)
            benchmark.prepare(item, group=case.model.name if case else "pytest-vq")
            item.add_marker(_TORCHS_OWN)
        if ours:
            benchmark.narrow_table(self._session.config)
        keep_pairs_together(items)

    def _refuse(self, error: SelectionError, items: list[pytest.Item]) -> None:
        items.clear()
        if not xdist.is_worker(self._session.config):
            raise pytest.UsageError(str(error)) from None
        xdist.refuse(self._session.config, str(error))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the pairs: the gate's error is shared among them."""
        self._session.comparisons = sum(case_of(item) is not None for item in session.items)
