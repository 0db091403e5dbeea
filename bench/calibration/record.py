"""Record fresh processes of small workloads for the replays: ``python -m bench.calibration.record OUT.jsonl -n 24``.

Each process times three blocks of a vision model (attention, MLP, convolution) in FP32 and BF16 and a fixed matrix
product, in turns, on one thread of the CPU. Unchanged code every time: whatever differs between processes is noise.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROUNDS, WARMUP = 40, 5
Call = Callable[[], Any]


def workloads() -> dict[str, Call]:
    """Name -> a call of a few milliseconds."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(192, 3, 384, batch_first=True).eval()
    mlp = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384))
    convolution = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
    left, right = torch.randn(384, 384), torch.randn(384, 384)
    calls: dict[str, Call] = {"sentinel": lambda: left @ right}
    for name, module, shape in (
        ("attention", attention, (1, 197, 192)),
        ("mlp", mlp, (1, 197, 384)),
        ("convolution", convolution, (1, 32, 48, 48)),
    ):
        images = torch.randn(shape)
        calls[f"{name}/fp32"] = _call(module, images)
        calls[f"{name}/bf16"] = _call(copy.deepcopy(module).to(torch.bfloat16), images.to(torch.bfloat16))
    return calls


def _call(module: Any, images: Any) -> Call:
    return lambda: module(images)


def measure() -> dict[str, Any]:
    """One process's samples, in nanoseconds."""
    import torch

    started = datetime.now(UTC).isoformat(timespec="seconds")
    calls = workloads()
    samples: dict[str, list[int]] = {name: [] for name in calls}
    with torch.inference_mode():
        for index in range(WARMUP + ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter_ns()
                call()
                taken = time.perf_counter_ns() - start
                if index >= WARMUP:
                    samples[name].append(taken)
    return {"condition": "shared", "threads": 1, "started_utc": started, "samples_ns": samples}


def main() -> None:
    """Append processes to a file, one a line; or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("-n", type=int, default=24)
    arguments = parser.parse_args()
    if arguments.out is None:
        sys.stdout.write(json.dumps(measure(), separators=(",", ":")) + "\n")
        return
    for _ in range(arguments.n):
        command = [sys.executable, "-m", "bench.calibration.record"]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with arguments.out.open("a") as file:
            file.write(line)


if __name__ == "__main__":
    main()
