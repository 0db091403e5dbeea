"""What an execution gives back: a request is called in its context, and everything but the call may be left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from factories import make_case, make_record
from torch import nn

from pytest_vq.execution.eager import prepare
from pytest_vq.execution.prepared import Prepared, Request, unaltered
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.figures import Preparation
from pytest_vq.schema.record import COLUMNS, Coverage, Record


class Switch:
    def __init__(self) -> None:
        self.is_on = False

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


def test_a_request_is_called_in_its_context_and_gives_what_the_call_gives() -> None:
    switch = Switch()
    request = Request(lambda: switch.is_on, switch.context)
    assert request() is True
    assert not switch.is_on
    assert request() is True  # a second time: the context is made anew


def test_a_request_that_fails_leaves_its_context() -> None:
    switch = Switch()
    request = Request(lambda: 1 / 0, switch.context)
    with pytest.raises(ZeroDivisionError):
        request()
    assert not switch.is_on


def test_a_request_needs_no_context() -> None:
    assert Request(lambda: 5)() == 5


def test_the_call_of_a_request_can_be_made_without_its_context() -> None:
    switch = Switch()
    assert Request(lambda: switch.is_on, switch.context).call() is False  # as whoever holds the context already does


def test_what_is_prepared_answers_the_images_of_each_request() -> None:
    switch = Switch()
    prepared = Prepared(lambda images: (switch.is_on, images.sum().item()), switch.context)
    one, two = prepared.request(torch.ones(1, 3)), prepared.request(torch.ones(2, 3))
    assert (one(), two(), one()) == ((True, 3.0), (True, 6.0), (True, 3.0))
    assert one.call() == (False, 3.0)


def test_all_but_the_call_is_optional() -> None:
    prepared = Prepared(torch.sum)
    assert prepared.request(torch.ones(2))() == 2
    assert prepared.pool_bytes == 0
    assert (prepared.batch, prepared.cache, prepared.counts, prepared.recorded) == (None, None, None, None)
    prepared.close()


def test_users_give_four_parts_by_position() -> None:
    switch, closed = Switch(), []
    prepared = Prepared(torch.sum, switch.context, 5, lambda: closed.append(1))
    prepared.close()
    assert (prepared.context, prepared.pool_bytes, closed) == (switch.context, 5, [1])


def test_eager_execution_calls_the_converted_module_as_it_is() -> None:
    module, images = nn.Flatten(), torch.ones(2, 3, 8, 8)
    prepared = prepare(Converted(module, "torch.float32", torch.float32, Coverage(eligible=0, quantized=0)), images)
    assert prepared == Prepared(module)
    assert prepared.request(images)().shape == (2, 192)


def test_what_is_not_altered_stays_the_same() -> None:
    prepared = Prepared(torch.sum)
    assert unaltered(make_case().scheme, prepared) is prepared


def test_a_row_tells_how_it_was_prepared_and_rows_from_before_read_as_eager() -> None:
    told = {"prepare_s": 31.5, "prepare_cache": "cold", "graphs": 1, "graph_breaks": 0, "recompiles": 0}
    record = make_record(execution="compile+graph", graph_pool_bytes=22, **told)
    row = record.to_row()
    assert Record.from_row(row) == record
    assert {name: row[name] for name in told} == told
    assert row["graph_pool_bytes"] == 22
    later = (*told, "graph_pool_bytes")
    first = COLUMNS.index(later[0])
    assert COLUMNS[first : first + len(later)] == later
    earlier = Record.from_row({name: cell for name, cell in row.items() if name not in (*later, "execution")})
    assert earlier.preparation == Preparation("eager")
    assert earlier.memory.graph_pool_bytes is None
