"""Train ``vit-digits`` and write the two data files of it that the package ships.

Usage: ``python tools/train_vit_digits.py [--epochs N] [--out FOLDER]`` (about two minutes on one thread; needs
scikit-learn, from the ``dev`` extra).

The data are scikit-learn's copy of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI Machine
Learning Repository, CC BY 4.0): 1,797 grey images of 8 x 8 pixels with values 0 to 16. A fixed permutation gives 797 to
training and 1,000 to the held-out file, which training never sees; the last epoch's weights are written whatever their
accuracy, so that the held-out images choose nothing.

Everything is seeded and runs on one thread: one machine writes the same files each time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from pytest_vq.catalog.build import scale_digits
from pytest_vq.catalog.models import DATA, DIGITS

SEED = 20240229
TRAINING_IMAGES = 797
BATCH = 64
PEAK_LEARNING_RATE = 1e-3
WARMUP_EPOCHS = 10
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1


def split_digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and held-out (images UINT8 ``[n, 1, 8, 8]``, labels INT64 ``[n]``), 797 and 1,000 of them."""
    digits: Any = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order].astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target[order].astype(np.int64))
    cut = TRAINING_IMAGES
    return (images[:cut], labels[:cut]), (images[cut:].contiguous(), labels[cut:])


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each of ``images`` [n, 1, 8, 8] moved by at most one pixel in both directions; what enters is background."""
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=float(scale_digits(torch.zeros(1))))
    offsets = torch.randint(0, 3, (len(images), 2), generator=generator)
    rows = offsets[:, :1] + torch.arange(8)
    columns = offsets[:, 1:] + torch.arange(8)
    index = torch.arange(len(images))
    return padded[index[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(images: Tensor, labels: Tensor, epochs: int) -> ViTForImageClassification:
    """The model after ``epochs`` passes over ``images`` (FP32 ``[n, 1, 8, 8]``) and ``labels``."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    config = ViTConfig.from_dict(json.loads((DATA / f"{DIGITS}.json").read_text(encoding="utf-8")))
    model: ViTForImageClassification = ViTForImageClassification(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARMUP_EPOCHS / max(epochs, WARMUP_EPOCHS + 1)
    )
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits = model(shift(images[chosen], generator)).logits
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 25 == 0:
            sys.stderr.write(f"epoch {epoch + 1}/{epochs}: last training loss {loss.item():.4f}\n")
    model.train(mode=False)
    return model


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The fraction of ``images`` (FP32) that ``model`` gives its label."""
    return float((model(images).logits.argmax(-1) == labels).float().mean())


def write(model: ViTForImageClassification, held_out: tuple[Tensor, Tensor], out: Path) -> None:
    """Write the weights (named as in a transformers checkpoint) and the held-out images to the folder ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(Path(folder) / "model.safetensors")
    save_file(weights, out / f"{DIGITS}.safetensors", metadata={"format": "pt"})
    images, labels = held_out
    source = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0"
    save_file(
        {"images": images, "labels": labels.to(torch.uint8)},
        out / "digits-heldout.safetensors",
        metadata={"source": source},
    )


def main() -> None:
    """Train, print the held-out accuracy, and write both files."""
    parser = argparse.ArgumentParser(description="Train vit-digits and write its weights and its held-out images.")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to (default: the package's data)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    (images, labels), held_out = split_digits()
    model = train(scale_digits(images), labels, options.epochs)
    write(model, held_out, options.out)
    found = accuracy(model, scale_digits(held_out[0]), held_out[1])
    sys.stdout.write(f"held-out accuracy: {found:.4f} on {len(held_out[1])} images\n")


if __name__ == "__main__":
    main()
