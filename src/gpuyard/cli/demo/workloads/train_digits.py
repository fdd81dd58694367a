"""Learns to read hand-written digits: a small network, trained for real, that saves what it has learnt.

Runs as a job of the demo: progress on standard output, `checkpoint.npz` in the working directory. Started again, it
goes on from there.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

EPOCHS = 40
HIDDEN = 3072
BATCH = 32
RATE = 0.05
CHECKPOINT = Path("checkpoint.npz")


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images of 8 x 8 pixels that scikit-learn ships; read without importing it, which would take a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("scikit-learn, which ships the digits, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    return rows[:, :64] / 16.0, rows[:, 64].astype(int)


def save(weights: list[np.ndarray], epoch: int, accuracy: float) -> None:
    """Whole or not at all."""
    draft = CHECKPOINT.with_suffix(".new.npz")
    np.savez(draft, *weights, epoch=epoch, accuracy=accuracy)
    draft.replace(CHECKPOINT)


def main() -> None:
    x, y = load_digits()
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1437], order[1437:]
    rng = np.random.default_rng(1)
    weights = [
        rng.normal(0, 64**-0.5, (64, HIDDEN)),
        np.zeros(HIDDEN),
        rng.normal(0, HIDDEN**-0.5, (HIDDEN, 10)),
        np.zeros(10),
    ]
    begin, accuracy = 0, 0.0
    if CHECKPOINT.exists():
        kept = np.load(CHECKPOINT)
        weights, begin = [kept[f"arr_{n}"] for n in range(4)], int(kept["epoch"])
        print(f"going on from epoch {begin}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: (save(weights, epoch, accuracy), sys.exit(143)))
    print(f"training on {os.environ.get('GPUYARD_CARDS', 'no card')}, {len(train)} digits", flush=True)
    epoch = begin
    for epoch in range(begin + 1, EPOCHS + 1):
        begun = time.monotonic()
        loss = 0.0
        for start in range(0, len(train), BATCH):
            loss += step(weights, x[train[start : start + BATCH]], y[train[start : start + BATCH]])
        accuracy = float((predict(weights, x[test]) == y[test]).mean())
        seconds = time.monotonic() - begun
        print(f"epoch {epoch}/{EPOCHS} loss {loss / 45:.4f} accuracy {accuracy:.4f} {seconds:.2f}s", flush=True)
        if epoch % 4 == 0:
            save(weights, epoch, accuracy)
    save(weights, EPOCHS, accuracy)
    print(f"done: accuracy {accuracy:.4f}, saved {CHECKPOINT}", flush=True)


def predict(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    w1, b1, w2, b2 = weights
    return (np.maximum(x @ w1 + b1, 0) @ w2 + b2).argmax(axis=1)


def step(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """One step of gradient descent on the cross-entropy of a batch; the loss before it."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exp / exp.sum(axis=1, keepdims=True)
    loss = float(-np.log(shares[np.arange(len(y)), y] + 1e-12).mean())
    shares[np.arange(len(y)), y] -= 1
    shares /= len(y)
    back = (shares @ w2.T) * (hidden > 0)
    for weight, gradient in zip(weights, (x.T @ back, back.sum(0), hidden.T @ shares, shares.sum(0)), strict=True):
        weight -= RATE * gradient
    return loss


if __name__ == "__main__":
    main()
