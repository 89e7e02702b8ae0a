"""When a second server is asked for what the first has not answered: rarely, and not because all are slow.

A server that hangs answers nothing and breaks nothing, so that its requests would wait for their deadlines while
another could answer them. Asking twice doubles work, which is the last thing that slow servers need. So:

- the first is waited for several times as long as answers take at present: when all of them take longer, so does this;
- a second one is asked only where no request of its own is overdue (`Watched.rank`), and once;
- there is one second question for every ten answers, and ten at once after a pause (the retry budget of gRPC's A6, the
  hedged requests of J. Dean, L. Barroso, The tail at scale, CACM 56(2), 2013);
- whoever answers first cancels the other.

Inferences change nothing, so asking twice does no harm; a stereo sequence, which learns, is never asked twice.
"""

from typing import Final

_PATIENCE: Final = 4.0
"""As a multiple of the mean time of an answer."""
_LEAST_PATIENCE_S: Final = 0.25
"""A pause of the machine's is no reason."""
_SMOOTHING: Final = 0.1
_EARNED: Final = 0.1
"""Second questions for each answer."""
_MOST_SAVED: Final = 10.0


class Hedging:
    """How long answers take, by model, and how many second questions may be asked."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._saved = _MOST_SAVED

    def answered(self, model: str, seconds: float) -> None:
        """A question was answered, `seconds` after it was first asked."""
        mean_s = self._mean_s.get(model, seconds)
        self._mean_s[model] = mean_s + _SMOOTHING * (seconds - mean_s)
        self._saved = min(_MOST_SAVED, self._saved + _EARNED)

    def patience_s(self, model: str, timeout_s: float) -> float | None:
        """How long to wait for the first server; None when the second would have no time left to answer.

        Args:
            model: its name; before its first answer nobody knows how long it takes, and half the time is waited.
            timeout_s: what is left for both.
        """
        mean_s = self._mean_s.get(model)
        if mean_s is None:
            return max(_LEAST_PATIENCE_S, timeout_s / 2)
        patience_s = max(_LEAST_PATIENCE_S, _PATIENCE * mean_s)
        return patience_s if patience_s + mean_s < timeout_s else None

    def take(self) -> bool:
        """Whether one more second question may be asked now."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
