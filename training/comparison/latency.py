"""Milliseconds a picture of several networks on this CPU, measured in turn so that a busy moment hits all alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm


@dataclass(frozen=True)
class Latency:
    """Of one network over all rounds, in milliseconds."""

    median_ms: float
    low_ms: float
    """10th percentile."""
    high_ms: float
    """90th percentile."""


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0, title: str = ""
) -> dict[str, Latency]:
    """Each function once a round, in an order that changes from round to round, after one round that is not counted.

    Args:
        runs: By name.
        rounds: At least one.
        seed: Of the order.
        title: Of the progress bar; none without.
    """
    rng, names = np.random.default_rng(seed), list(runs)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        runs[name]()
    for _ in tqdm(range(rounds), desc=title, unit="round", disable=not title):
        for index in rng.permutation(len(names)):
            start = time.perf_counter()
            runs[names[index]]()
            taken[names[index]].append((time.perf_counter() - start) * 1e3)
    return {name: Latency(*(float(np.percentile(ms, q)) for q in (50, 10, 90))) for name, ms in taken.items()}
