"""Evidence on a rate that may be looked at after every execution: tests by betting, pure.

Each execution gives the share X of its rows that failed, between 0 and 1. A gambler who bets on ``X > p`` at fair odds,
or worse, cannot expect to get rich, however the executions depend on each other: his wealth is a supermartingale, and
by Ville's inequality (1939) it ever reaches 1/a with a probability of a at most. So it may be watched without end, and
whole batches may share their fate. Which stakes: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random
variables by betting". "More than 1 % of the last 100" has no such guarantee: watched for long, it alarms at any rate.

The code is plain arithmetic: shares may be floats, or numpy arrays of many streams at once.
"""

from __future__ import annotations

from typing import Any

# Shares of the largest stake that cannot ruin; at a rate of 1 % the stakes are .5, 1, 2, 4, 8, 16, 32, 64 and 90.
_UPWARD = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.9)
_DOWNWARD = (0.0625, 0.125, 0.25, 0.5, 0.75, 0.9, 0.99)
# Wealth is not kept beyond this: a gambler may always put some aside, and what is infinite would never fall again.
_MOST = 1e12


class ExceedanceEvidence:
    """Evidence that the share of rows that fail exceeds ``rate``.

    A test that starts once is deaf after a clean past: all is lost by then. So a new one starts at every execution k,
    with 1 ÷ k(k+1) of the money; what has not started yet, 1 ÷ (n+1), is kept. All starts together are one recursion.
    """

    def __init__(self, rate: float) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"a failure rate of {rate} is not between 0 and 1")
        self.rate = rate
        self.executions = 0
        self._stakes = [share / rate for share in _UPWARD]
        self._wealth: list[Any] = [0.0] * len(_UPWARD)

    def add(self, share: Any) -> Any:
        """Count one more execution, of whose rows ``share`` failed; returns the evidence after it."""
        self.executions += 1
        begins = 1 / (self.executions * (self.executions + 1))
        gain = share - self.rate
        pairs = zip(self._wealth, self._stakes, strict=True)
        self._wealth = [(wealth + begins) * (1 + stake * gain) for wealth, stake in pairs]
        return self.value

    @property
    def value(self) -> Any:
        """The wealth: at 1/a, the rate is exceeded, and that is said wrongly with a probability of a at most."""
        return sum(self._wealth) / len(self._wealth) + 1 / (self.executions + 1)


class ShortfallEvidence:
    """The mirrored test: evidence that the share of rows that fail is below ``rate``."""

    def __init__(self, rate: float) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"a rate of {rate} is not between 0 and 1")
        self.rate = rate
        self.executions = 0
        self._stakes = [share / (1 - rate) for share in _DOWNWARD]
        self._wealth: list[Any] = [1.0] * len(_DOWNWARD)

    def add(self, share: Any) -> Any:
        """Count one more execution, of whose rows ``share`` failed; returns the evidence after it."""
        self.executions += 1
        gain = self.rate - share
        kept = (wealth * (wealth < _MOST) + _MOST * (wealth >= _MOST) for wealth in self._wealth)
        self._wealth = [wealth * (1 + stake * gain) for wealth, stake in zip(kept, self._stakes, strict=True)]
        return self.value

    @property
    def value(self) -> Any:
        """The wealth: at 1/a, the rate is not reached, and that is said wrongly with a probability of a at most."""
        return sum(self._wealth) / len(self._wealth)
