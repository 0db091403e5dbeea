"""What changed inside a pair that became worse, in sentences."""

from __future__ import annotations

from pytest_vq.gate.explain import explain, explain_memory, what_changed
from pytest_vq.schema.estimates import Operator


def op(calls: float, ms: float) -> Operator:
    return Operator(calls=calls, self_ms=ms, self_bytes=0)


BEFORE = {"aten::addmm": op(48, 6.0), "aten::gelu": op(12, 1.0), "aten::copy_": op(2, 3.0)}


def test_changes_are_named_largest_first_with_their_share_of_the_total() -> None:
    now = {"aten::addmm": op(48, 8.0), "aten::to": op(24, 0.5), "aten::copy_": op(2, 3.0), "aten::gelu": op(12, 1.05)}
    assert explain(BEFORE, now) == [
        "all operators together: 10 → 12.6 ms; what moved beyond that lies between them",
        "aten::addmm: 6 → 8 ms in 48 calls (+2 ms, +20.0% of the total)",
        "aten::to appeared: 24 calls, +0.5 ms, +5.0% of the total",
    ]


def test_what_vanished_and_what_is_called_more_often() -> None:
    now = {"aten::addmm": op(96, 9.0), "aten::gelu": op(12, 1.0)}
    assert explain(BEFORE, now)[1:] == [
        "aten::addmm: 6 → 9 ms in 48 → 96 calls (+3 ms, +30.0% of the total)",
        "aten::copy_ vanished: 2 calls, -3 ms, -30.0% of the total",
    ]


def test_no_more_than_the_top_five() -> None:
    now = BEFORE | {f"new{i}": op(1, 1.0 + i) for i in range(9)}
    together, *largest = explain(BEFORE, now)
    assert together.startswith("all operators together: 10 → 55 ms")
    assert [sentence.partition(" ")[0] for sentence in largest] == ["new8", "new7", "new6", "new5", "new4"]


def test_time_that_no_operator_took_is_said_to_lie_between_them() -> None:
    sentences = explain(BEFORE, BEFORE)
    assert sentences == ["all operators together: 10 → 10 ms; what moved beyond that lies between them"]


def test_without_a_stored_table_nothing_is_invented() -> None:
    assert explain({}, BEFORE) == ["no operators are stored with this baseline: the next --vq-save stores them"]


def test_memory_is_explained_by_the_operators_that_keep_more_of_it() -> None:
    before = {"aten::empty": Operator(calls=9, self_ms=1.0, self_bytes=4 << 20), "aten::gelu": op(12, 1.0)}
    now = before | {
        "aten::empty": Operator(calls=9, self_ms=1.0, self_bytes=5 << 20),
        "aten::ones": Operator(calls=1, self_ms=0.1, self_bytes=32 << 20),
    }
    assert explain_memory(before, now) == [
        "aten::ones keeps 32.0 MiB that it allocates, 32.0 MiB more than in the baseline",
        "aten::empty keeps 5.0 MiB that it allocates, 1.0 MiB more than in the baseline",
    ]
    assert explain_memory(now, before) == []


def test_time_and_memory_are_both_explained_where_both_failed() -> None:
    now = BEFORE | {"aten::ones": Operator(calls=1, self_ms=1.0, self_bytes=32 << 20)}
    time, memory = explain(BEFORE, now), explain_memory(BEFORE, now)
    assert time
    assert memory
    assert what_changed(["latency", "peak_memory"], BEFORE, now, ["forward holds it"]) == [
        *time,
        *memory,
        "forward holds it",
    ]
    assert what_changed(["peak_memory"], BEFORE, now, ["forward holds it"]) == [*memory, "forward holds it"]
    assert what_changed(["latency", "speedup"], BEFORE, now, ["forward holds it"]) == time
