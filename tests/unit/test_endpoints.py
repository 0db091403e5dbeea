"""Endpoints: a model of torch here, and one behind a server that speaks the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from v2_server import Handler, v2_server

from pytest_vq.errors import EndpointError, QueueFullError
from pytest_vq.schema.load_run import OK, LoadPlan
from pytest_vq.serve.endpoint import SampledService, TorchEndpoint, serve_unbatched
from pytest_vq.serve.inference_protocol import Message, datatype_of, decode, encode
from pytest_vq.serve.inference_server import ProtocolModel, Reply
from pytest_vq.serve.load import Served, run_load
from pytest_vq.serve.open_inference import OpenInferenceEndpoint, ServerModel
from pytest_vq.serve.ray_serve import RayServeEndpoint

BATCH = np.array([[1.5, -2.0], [0.0, 1e-30], [1e38, 7.0]], np.float32)

Server = tuple[str, type[Handler]]


@pytest.fixture
def server() -> Iterator[Server]:
    with v2_server() as running:
        yield running


@pytest.mark.parametrize("extensions", [[], ["binary_tensor_data"]], ids=["json", "binary"])
def test_a_batch_is_inferred_by_a_server_whatever_it_says_it_takes(server: Server, extensions: list[str]) -> None:
    url, seen = server
    seen.extensions = extensions
    endpoint = OpenInferenceEndpoint(ServerModel(url, "double"))
    answer = endpoint.infer(BATCH)
    endpoint.close()
    np.testing.assert_array_equal(answer, 2 * BATCH)
    assert answer.dtype == np.float32
    (request,) = seen.seen
    assert endpoint.binary == bool(extensions)
    assert ("data" in request["inputs"][0]) == (not extensions)
    assert request["inputs"][0] | {"name": "x", "shape": [3, 2], "datatype": "FP32"} == request["inputs"][0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("binary", [False, True])
def test_types_survive_the_way_there_and_back(server: Server, dtype: str, binary: bool) -> None:
    endpoint = OpenInferenceEndpoint(ServerModel(server[0], "double"), binary=binary)
    batch = np.arange(12).reshape(2, 3, 2).astype(dtype)[:, ::-1]  # not contiguous
    answer = endpoint.infer(batch)
    endpoint.close()
    assert (answer.dtype, answer.tolist()) == (batch.dtype, (2 * batch).tolist())


def test_big_endian_and_half_precision_arrays_go_as_binary_data_and_half_not_as_json() -> None:
    half = BATCH[:2].astype(np.float16)
    for batch in (BATCH.astype(">f4"), half):
        decoded = decode("inputs", encode("inputs", {"x": batch}, binary=True))["x"]
        np.testing.assert_array_equal(decoded, batch)
    with pytest.raises(EndpointError, match="FP16"):
        encode("inputs", {"x": half}, binary=False)
    with pytest.raises(EndpointError, match="no datatype for complex64"):
        datatype_of(BATCH.astype(np.complex64))


def test_one_connection_a_thread_is_kept_open(server: Server) -> None:
    url, seen = server
    endpoint = OpenInferenceEndpoint(ServerModel(url, "double"))
    together = threading.Barrier(2)

    def ask(_: int) -> None:
        together.wait()
        for _ in range(5):
            endpoint.infer(BATCH)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ask, range(2)))
    endpoint.close()
    assert (len(seen.seen), len(seen.connections)) == (10, 2)


def test_a_connection_that_the_server_closed_while_idle_is_opened_again(server: Server) -> None:
    url, seen = server
    endpoint = OpenInferenceEndpoint(ServerModel(url, "hangup"))
    for _ in range(3):
        np.testing.assert_array_equal(endpoint.infer(BATCH), 2 * BATCH)
        time.sleep(0.05)  # the server's end is closed by now
    endpoint.close()
    assert len(seen.connections) == 3


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("failing", r"failing at http://127.0.0.1:\d+ answered 500 .* CUDA error: out of memory"),
        ("traced", r"answered 500 .*: ValueError: no such picture$"),
        ("nonsense", "no message of the protocol with outputs: it begins with '<html>welcome"),
        ("other", "answered with other, and not with y"),
        ("short", "output y is not what it says: ValueError: cannot reshape"),
        ("words", "its datatype BYTES is no number's"),
        ("rows", r"answered a batch of 3 with an output of shape \[1, 2\]"),
        ("slow", "slow at .* did not answer within 0.6 s"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_who_and_why(server: Server, model: str, words: str) -> None:
    endpoint = OpenInferenceEndpoint(ServerModel(server[0], model), timeout_s=0.6)
    with pytest.raises(EndpointError, match=words):
        endpoint.infer(BATCH)
    endpoint.close()


def test_a_server_that_is_too_busy_refuses(server: Server) -> None:
    endpoint = OpenInferenceEndpoint(ServerModel(server[0], "busy"))
    with pytest.raises(QueueFullError, match=r"answered 503 .* queue full"):
        endpoint.infer(BATCH)
    endpoint.close()


def test_a_model_or_server_that_is_not_there_is_an_error_at_once(server: Server) -> None:
    with pytest.raises(EndpointError, match=r"answered 404 .* Model absent not found"):
        OpenInferenceEndpoint(ServerModel(server[0], "absent"))
    with pytest.raises(EndpointError, match="does not say what its input is called: give the name, input_name="):
        OpenInferenceEndpoint(ServerModel(server[0], "nameless"))
    with pytest.raises(EndpointError, match="cannot be reached: ConnectionRefusedError"):
        OpenInferenceEndpoint(ServerModel("http://127.0.0.1:9", "double"))
    with pytest.raises(EndpointError, match="is no address of a server"):
        OpenInferenceEndpoint(ServerModel("127.0.0.1:8080", "double"))


def test_a_name_that_is_given_needs_no_metadata_of_it(server: Server) -> None:
    endpoint = OpenInferenceEndpoint(ServerModel(server[0], "nameless", input_name="pixels"))
    np.testing.assert_array_equal(endpoint.infer(BATCH), 2 * BATCH)
    endpoint.close()
    assert server[1].seen[0]["inputs"][0]["name"] == "pixels"


@pytest.mark.parametrize("data", ["[NaN, Infinity]", "[null, 1e999]"])
def test_an_answer_that_is_not_finite_is_read_as_that(data: str) -> None:
    text = f'{{"outputs": [{{"name": "y", "shape": [2], "datatype": "FP32", "data": {data}}}]}}'
    assert [*map(str, decode("outputs", Message(text.encode()))["y"])] == ["nan", "inf"]


def test_an_input_that_is_not_finite_is_refused_before_it_is_sent() -> None:
    with pytest.raises(EndpointError, match="x holds values that are not finite"):
        encode("inputs", {"x": np.array([np.inf, 1.0])}, binary=False)


def test_a_message_that_is_cut_off_is_an_error() -> None:
    whole = encode("outputs", {"y": BATCH}, binary=True)
    with pytest.raises(EndpointError, match="output y is not what it says"):
        decode("outputs", Message(whole.body[:-4], whole.json_bytes))


def test_load_goes_to_a_server_as_it_does_to_a_model_here(server: Server) -> None:
    url, seen = server
    plan = LoadPlan("Server", 60, target_qps=300.0, warmup_requests=4)
    run = run_load(plan, Served("served:remote", {"url": url, "model": "double"}))
    assert run.requests.outcome == (OK,) * 60
    assert len(seen.seen) == 64


def test_a_model_of_torch_answers_rows_in_order_and_is_let_go_of() -> None:
    linear = nn.Linear(2, 3).eval()
    endpoint = TorchEndpoint(linear)
    answer = endpoint.infer(BATCH[:2])
    np.testing.assert_array_equal(answer, linear(torch.from_numpy(BATCH[:2])).detach().numpy())
    endpoint.close()
    with pytest.raises(EndpointError, match="was served and closed"):
        endpoint.infer(BATCH)


class BackPressureError(Exception):
    """Called as Ray's own is."""


class Handle:
    """A handle of Ray Serve, as far as it is used, whose deployment answers or raises ``outcome``."""

    deployment_name = "Model"

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome
        self.infer = self

    def remote(self, batch: np.ndarray) -> Handle:
        return self

    def result(self, *, timeout_s: float) -> object:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_a_ray_deployment_is_asked_through_its_handle() -> None:
    np.testing.assert_array_equal(RayServeEndpoint(Handle(2 * BATCH)).infer(BATCH), 2 * BATCH)


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        (TimeoutError(), EndpointError, "the Ray Serve deployment Model.infer did not answer within 10 s"),
        (BackPressureError("64 requests wait"), QueueFullError, "BackPressureError: 64 requests wait"),
        (ValueError("no such picture"), EndpointError, "ValueError: no such picture"),
        (BATCH[:1], EndpointError, r"answered a batch of 3 with an output of shape \[1, 2\]"),
    ],
)
def test_what_ray_does_not_answer_is_an_error(outcome: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        RayServeEndpoint(Handle(outcome)).infer(BATCH)


def reply(method: str, path: str, message: Message | None = None, error: Exception | None = None) -> Reply:
    """What a model that doubles, or raises ``error``, replies."""

    async def infer(batch: np.ndarray) -> np.ndarray:
        if error is not None:
            raise error
        return 2 * batch

    headers, body = (message.headers, message.body) if message else ({}, b"")
    return asyncio.run(ProtocolModel("vit", infer).reply(method, path, headers, body))


@pytest.mark.parametrize("binary", [False, True])
def test_a_server_of_ones_own_answers_in_the_form_that_it_was_asked_in(binary: bool) -> None:
    answer = reply("POST", "/v2/models/vit/infer", encode("inputs", {"x": BATCH}, binary))
    length = answer.headers.get("Inference-Header-Content-Length")
    assert (answer.status, length is not None) == (200, binary)
    outputs = decode("outputs", Message(answer.body, int(length) if length else None))
    np.testing.assert_array_equal(outputs["y"], 2 * BATCH)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v2", 200), ("/v2/health/ready", 200), ("/v2/models/vit", 200), ("/v2/models/vit/ready", 200),
     ("/v2/models/other/ready", 404), ("/", 404)],
)  # fmt: skip
def test_a_server_of_ones_own_tells_what_it_is(path: str, status: int) -> None:
    assert reply("GET", path).status == status


@pytest.mark.parametrize(
    ("message", "error", "status", "words"),
    [
        (Message(b"{}"), None, 400, "it takes one input called x"),
        (encode("inputs", {"pixels": BATCH}, binary=False), None, 400, "'x'"),
        (encode("inputs", {"x": BATCH}, binary=False), QueueFullError("64 wait"), 503, "64 wait"),
        (encode("inputs", {"x": BATCH}, binary=False), ValueError("no such picture"), 500, "ValueError: no such"),
    ],
)
def test_a_server_of_ones_own_says_what_is_wrong(
    message: Message, error: Exception | None, status: int, words: str
) -> None:
    answer = reply("POST", "/v2/models/vit/infer", message, error)
    assert answer.status == status
    assert words in answer.body.decode()


def test_an_output_with_other_rows_than_the_batch_is_an_error() -> None:
    with pytest.raises(EndpointError, match=r"the model answered a batch of 3 with an output of shape \[2\]"):
        TorchEndpoint(lambda batch: batch.sum(0)).infer(BATCH)


def test_a_half_precision_model_answers_in_fp32() -> None:
    endpoint = TorchEndpoint(lambda batch: batch.to(torch.bfloat16))
    assert endpoint.infer(BATCH[:1]).tolist() == [[1.5, -2.0]]


def test_unbatched_service_answers_each_sample_and_closes_what_it_serves() -> None:
    endpoint = TorchEndpoint(lambda batch: 2 * batch)
    service: SampledService = serve_unbatched(endpoint, BATCH, connections=2)
    answers = [service.submit(sample).result(5) for sample in range(service.sample_count)]
    service.close()
    np.testing.assert_array_equal(np.stack(answers), 2 * BATCH)
    with pytest.raises(EndpointError):
        endpoint.infer(BATCH)
