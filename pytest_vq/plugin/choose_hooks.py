"""A process that chooses: ``pytest -p pytest_vq.plugin.choose_hooks --vq-choose FILE``.

pytest collects as it always does, so that what conftest files register is known; then the choice takes the place of the
tests. ``pytest-vq choose`` starts it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_vq.catalog.models import find_model
from pytest_vq.device.target import find_target
from pytest_vq.errors import SelectionError, VqError
from pytest_vq.files import write_json
from pytest_vq.options import read_options
from pytest_vq.schema.choice import ChoiceAnswer, ChoiceRequest

_USAGE, _ERROR, _NOTHING_QUALIFIES = 2, 1, 3  # exit codes of the console script


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where the request is."""
    parser.getgroup("vq-choose", "pytest-vq: choose a precision for each layer").addoption(
        "--vq-choose", metavar="FILE", required=True, help="the request, as pytest-vq choose writes it"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Choose, leave the answer, and run no test."""
    data = Path(session.config.getoption("--vq-choose")).read_bytes()
    request = msgspec.json.decode(data, type=ChoiceRequest)
    write_json(Path(request.answer), _answer(request, session))
    return True


def _answer(request: ChoiceRequest, session: pytest.Session) -> ChoiceAnswer:
    from pytest_vq.advise.choosing import check_wish, choose

    options = read_options(session.config)
    try:
        model = find_model(request.model)
    except SelectionError as error:
        failed = f" ({session.testsfailed} modules could not be collected)" if session.testsfailed else ""
        return ChoiceAnswer(error=f"{error}{failed}", code=_USAGE)
    try:
        check_wish(request.wish, find_target(gpu=options.gpu))
        choice = choose(model, request.wish, options, lambda line: _tell(request, line))
    except SelectionError as error:
        return ChoiceAnswer(error=str(error), code=_USAGE)
    except VqError as error:
        return ChoiceAnswer(error=str(error), code=_ERROR)
    return ChoiceAnswer(choice, code=0 if choice.recipe is not None else _NOTHING_QUALIFIES)


def _tell(request: ChoiceRequest, line: str) -> None:
    if request.progress_fd is not None:
        os.write(request.progress_fd, f"{line}\n".encode())
