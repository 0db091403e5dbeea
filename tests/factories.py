"""One builder each of what tests are made of; what a test does not name is plausible, and the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from pytest_vq.execution.schemes import find_scheme
from pytest_vq.schema.estimates import Anchor, Entry, Estimates
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.record import COLUMNS, Environment, PairSamples, Record, Samples
from pytest_vq.schema.served import BatchTime
from pytest_vq.schema.serving import LoadEvidence, ServingTerms
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import CALLABLE, Case, ModelSpec

MIB = 2**20
# Names that would split a row, mention somebody, run, command a runner, or turn text around, if they were let.
HOSTILE = (
    "a|b",
    "`x` and ```",
    "@org/team",
    "<script>alert(1)</script>",
    "net\n::error::all is lost",
    "::error::all is lost",
    "\x1b[31mred\x1b[0m",
    "safe\u202eevil",
)
ENVIRONMENT = Environment(
    device="cpu",
    device_name="A CPU",
    device_slug="cpu-a",
    device_uuid="CPU-1",
    versions={"torch": "2.13.0", "python": "3.11"},
    settings={},
    commit="abc",
    date_utc="2026-01-01T00:00:00Z",
)


CALLABLE_SETUP = Setup(CALLABLE, 1, "adaptive", None, 1, tf32=False)


def make_setup(precision: str = "int8", **changes: Any) -> Setup:
    """A setup on one thread of a CPU that computes in BF16."""
    rest = "bf16" if precision in {"int8", "int4"} else None
    return replace(Setup(precision, 1, "adaptive", "random", 1, tf32=False, rest=rest), **changes)


def make_case(model: str = "net", scheme: str = "int8", batch: int = 1) -> Case:
    """A pair of a small model of the user's, which cannot be built."""
    return Case(ModelSpec(model, "local", "Net", (3, 8, 8), 10, ()), find_scheme(scheme), batch)


def make_record(model: str = "net", precision: str = "int8", **columns: Any) -> Record:
    """A row as a CPU gives it; ``columns`` are named as in ``results.csv``, further ones ``setup`` and ``coverage``."""
    reference = precision == "fp32"
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "model": model,
        "category": "local",
        "architecture": "Net",
        "parameters": 10,
        "precision": precision,
        "method": "torch.float32" if reference else "a method, bf16 rest",
        "device": "A CPU",
        "batch": 1,
        "weights": "random",
        "execution": "eager",
        "latency_ms": 10.0,
        "latency_low_ms": 9.9,
        "latency_high_ms": 10.1,
        "latency_q10_ms": 9.8,
        "samples": 100,
        "stop_reason": "interval",
        "speedup": 1.0 if reference else 2.0,
        "speedup_low": 1.0 if reference else 1.99,
        "speedup_high": 1.0 if reference else 2.01,
        "peak_memory_bytes": 100 * MIB,
        "model_size_bytes": 50 * MIB,
        "memory_reduction": 0.0 if reference else 0.25,
        "sqnr_db": None if reference else 30.0,
        "coverage": {"eligible": 48, "quantized": 0 if reference else 48, "left": {}},
        "telemetry": {},
        "reason": "",
    }
    return _row_to_record(row | columns)


TEST_ID = "tests/test_ops.py::test_matmul[64]"


def make_callable_record(test_id: str = TEST_ID, **columns: Any) -> Record:
    """A row of a callable: without all that takes a model, or FP32 beside it."""
    of_models = ("architecture", "parameters", "batch", "weights", "execution", "model_size_bytes", "memory_reduction")
    ratios = ("speedup", "speedup_low", "speedup_high", "sqnr_db")
    row: dict[str, Any] = dict.fromkeys((*of_models, *ratios))
    row |= {"category": CALLABLE, "method": "test_ops.matmul", "coverage": {"eligible": None, "quantized": None}}
    return make_record(test_id, CALLABLE, **{**row, "setup": CALLABLE_SETUP, **columns})


SERVING_TERMS = ServingTerms("Server", "loadgen")


def make_serving_record(model: str = "net", precision: str = "int8", **columns: Any) -> Record:
    """A row of a pair under load: 200 requests a second, of which so few are late that the claim holds."""
    terms = columns.pop("terms", SERVING_TERMS)
    ungiven = ("latency_low_ms", "latency_high_ms", "speedup", "speedup_low", "speedup_high", "peak_memory_bytes")
    row: dict[str, Any] = dict.fromkeys((*ungiven, "model_size_bytes", "memory_reduction", "sqnr_db"))
    row |= {
        "scenario": terms.scenario,
        "latency_ms": 4.0,
        "samples": 50_000,
        "stop_reason": "protocol",
        "target_qps": 200.0,
        "max_qps_low": 222.0,
        "max_qps_high": 240.0,
        "offline_qps": 400.0,
        "utilisation": 0.5,
        "p995_ms": 8.0,
        "violation_rate": 0.001,
        "violation_low": 0.0005,
        "violation_high": 0.002,
        "variance_inflation": 2.0,
        "late_requests": 50,
        "unanswered_requests": 0,
        "load_processes": 5,
        "queue_ms": 0.5,
        "queue_p99_ms": 3.0,
        "execution_ms": 3.0,
        "execution_p99_ms": 5.0,
        "mean_batch_size": 1.5,
        "setup": make_setup(precision, protocol="load", serving=terms),
        "load": LoadEvidence(terms, 10_000, (BatchTime(1, 2.5, 400.0),), {"1": 20_000, "2": 15_000}, {"ok": 50_000}),
    }
    return make_record(model, precision, **{**row, **columns})


def alter(record: Record, **columns: Any) -> Record:
    """``record`` with other figures in ``columns``, whatever their section."""
    row = record.to_row()
    del row["setup"]  # made anew from what identifies the row, unless it is given
    kept = {name: getattr(record.setup, name) for name in ("protocol", "threads", "tf32", "serving")}
    return _row_to_record(row | columns, **kept)


def _row_to_record(row: dict[str, Any], **setup: Any) -> Record:
    own = {name: row[name] for name in ("precision", "batch", "weights", "execution")}
    row.setdefault("setup", make_setup(**(own | setup)))
    return Record.from_row({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def make_estimates(**changes: Any) -> Estimates:
    """The estimates of a process that measured `make_record`'s row."""
    return replace(Estimates.of(make_record(), ENVIRONMENT), **changes)


def make_entry(processes: Sequence[Estimates], setup: Setup | None = None, anchor: Sequence[Estimates] = ()) -> Entry:
    """A baseline of these processes; its anchor is the first five unless it is given."""
    return Entry(setup or make_setup(), Anchor(tuple(anchor or processes[:5]), "first recorded", ""), tuple(processes))


def make_samples(*blocks_ms: Sequence[float], date_utc: str = ENVIRONMENT.date_utc) -> PairSamples:
    """The samples of one process: the pair's blocks, FP32's twice as long, and a sentinel's of a millisecond."""
    blocks = tuple(tuple(block) for block in blocks_ms or [(10.0, 10.1), (9.9, 10.0)])
    slower = tuple(tuple(2 * ms for ms in block) for block in blocks)
    pace = tuple((1.0,) for _ in blocks)
    return PairSamples(date_utc, *(Samples(taken, "interval", 10) for taken in (blocks, slower, pace)))


def make_outcome(record: Record | None = None, environment: Environment = ENVIRONMENT, **changes: Any) -> Outcome:
    """What a test of ``record``'s pair hands on, measured in one process."""
    record = record or make_record()
    samples = make_samples(date_utc=environment.date_utc)
    return replace(Outcome(record, environment, (Estimates.of(record, environment),), (samples,)), **changes)
