"""Every constant of the decision in one place, each with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlopePrior:
    """What is known beforehand of the share of the sentinel's changes that a figure follows."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class Policy:
    """The gate's constants; fractions are relative changes. ``docs/calibration.md`` has the simulations behind them."""

    # Error. One-sided, for all pairs, metrics, references and looks of a suite together (Bonferroni).
    suite_error: float = 0.01
    timed_metrics: int = 2  # absolute latency and paired speedup
    references: int = 2  # the recent processes and the anchor
    max_looks: int = 3
    last_look_share: float = 0.8  # of that error; a FAIL on fewer looks has to be confirmed anyway
    pass_error: float = 0.006  # chance to PASS a true slowdown of the resolution, over all looks; heavy tails double it

    # Smallest changes worth failing for, and the slowdown that a PASS excludes.
    latency_tolerance: float = 0.03
    speedup_tolerance: float = 0.02
    resolution: float = 0.05
    # A FAIL needs every fresh process to show this share of the tolerance, and this many sigma: one disturbed process
    # in three is common on shared machines and moves the mean of three past any normal-theory bound.
    confirmation: float = 0.5
    confirmation_sigmas: float = 1.6

    # Too few processes and no pool: the wide tolerances, and a typical between-process sigma for the interval's width.
    uncalibrated_latency_tolerance: float = 0.10
    uncalibrated_speedup_tolerance: float = 0.05
    uncalibrated_sigma: float = 0.01
    uncalibrated_error: float = 0.025  # one-sided, a look: a 95 % interval that excludes no change, or the resolution
    # Without a pool; with fewer, t quantiles make the calibrated rule blinder than the wide one.
    min_processes: int = 5
    min_error_df: float = 4.0  # with a pool: the prior's and the pair's own degrees of freedom

    # A card that the baseline never met: with so many known ones their differences are known well enough to judge by.
    # Its effect is one draw for all pairs: it takes this share of the whole suite's error, the pairs share the rest.
    min_cards: int = 3
    card_share: float = 0.8

    # The pool of noise. Without one, a weak prior at what shared CPUs show for low quantiles and paired ratios.
    default_prior_df: float = 4.0
    default_prior_sigma: float = 0.015
    sigma_floor: float = 0.001  # the event clock's 0.5 us on the shortest interval timed, 0.5 ms
    min_pool_pairs: int = 3
    # Of what is learnt from: where the sentinel explains both of two processes, what is left has no freedom, and its
    # logarithm no bounds.
    min_learning_df: float = 1.0
    max_prior_df_per_pair: float = 3.0  # k pairs cannot prove that all sigmas are equal
    wild_p: float = 0.001  # a pair whose variance is this unlikely beside the quieter half's teaches nothing of others
    outlier_p: float = 0.01  # a pair whose own variance is this unlikely under the prior is judged on its own

    # The share of the sentinel's changes that a time follows: none or all of it are one sd away. A paired ratio should
    # follow none; on a shared CPU it followed -0.3 ... 0.2.
    latency_slope: SlopePrior = SlopePrior(0.5, 0.5)
    speedup_slope: SlopePrior = SlopePrior(0.0, 0.25)

    # The sentinel: a move that is unlikely and worth the name sends a changed absolute time to INCONCLUSIVE, and a
    # changed paired speedup unless it changed by more than this share of the move. In a noisy hour of a shared CPU
    # LLM.int8 lost 12 % against FP32, where the sentinel lost 20 %.
    drift_p: float = 0.001
    drift_minimum: float = 0.03
    drift_share: float = 0.75
    drift_sigma: float = 0.02  # of the sentinel between processes, where nothing better is known: a shared CPU's

    # Memory and size.
    memory_repeat_bytes: int = 512 * 1024  # below any tensor worth a name; used where repeats agree to the byte
    memory_relative: float = 0.01
    memory_minimum_bytes: int = 2 * 1024**2
    cpu_memory_relative: float = 0.05  # resident memory moves in whole arenas
    cpu_memory_minimum_bytes: int = 4 * 1024**2
    # Between processes of one code it moved by up to a half (convolutions: 78 ... 104 MiB), for others by nothing: by
    # twice what the recent processes spanned, and by as much as was ever seen where they are too few to tell.
    cpu_memory_spread: float = 2.0
    uncalibrated_cpu_memory_relative: float = 0.5
    uncalibrated_cpu_memory_minimum_bytes: int = 16 * 1024**2
    size_relative: float = 0.001  # bytes of weights are deterministic; names and alignment in the file's header are not
    size_minimum_bytes: int = 4 * 1024

    # Fidelity. It is deterministic: what the recent processes spanned, and at least this, is what may be lost. Above
    # the ceiling two kernels of one arithmetic differ in their last bits by as much.
    fidelity_tolerance_db: float = 1.0
    fidelity_ceiling_db: float = 80.0
    accuracy_tolerance: float = 0.01  # where the baseline did not keep which images it had right

    power: float = 0.9  # "could have seen" means: would have failed this often

    def cpu_memory(self, processes: int) -> tuple[float, float]:
        """``(relative, at least bytes)`` that resident memory may grow, known from so many processes."""
        if processes < self.min_processes:
            return self.uncalibrated_cpu_memory_relative, self.uncalibrated_cpu_memory_minimum_bytes
        return self.cpu_memory_relative, self.cpu_memory_minimum_bytes

    def fail_error(self, comparisons: int, processes: int) -> float:
        """The one-sided error of a single comparison after a number of fresh processes."""
        early = (1 - self.last_look_share) / (self.max_looks - 1)
        share = early if processes < self.max_looks else self.last_look_share
        return self.suite_error * share / (max(comparisons, 1) * self.timed_metrics * self.references)

    def pass_error_per_look(self) -> float:
        """The one-sided error of excluding the resolution at a single look."""
        return self.pass_error / self.max_looks


DEFAULT = Policy()
