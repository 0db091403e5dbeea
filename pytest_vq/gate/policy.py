"""Every constant of the decision in one place, each with where it comes from."""

from __future__ import annotations

from bisect import bisect_right
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
    # A third of it is left unspent: the pool takes pairs for independent, and is too sure of itself where the machine
    # shakes all of them at once ("common shocks" in the simulations).
    suite_error: float = 0.01
    steady_share: float = 0.35  # of that error, for each of the steady estimates: absolute latency, paired speedup
    typical_share: float = 0.05  # and for each of the two that are shown beside them: the median, the 95 % quantile
    references: int = 2  # the recent processes and the anchor
    pass_error: float = 0.006  # chance to PASS a true slowdown of the resolution, over all looks; heavy tails double it

    # Looks: a pair is judged after so many fresh processes, each time with a share of the error (group sequential
    # testing: Pocock 1977, Lan and DeMets 1983). A FAIL counts from the confirming look on; until the settling look
    # what may become a PASS is looked at again, until the last one what may become a FAIL.
    looks: tuple[int, ...] = (1, 2, 3, 6, 10)
    confirming_look: int = 3
    settling_look: int = 6
    fail_shares: tuple[float, ...] = (0.0, 0.0, 0.25, 0.15, 0.4)
    pass_shares: tuple[float, ...] = (0.25, 0.25, 0.2, 0.25, 0.05)
    hope: float = 0.5  # "may" lets the effect be by so many of its standard errors better, or worse, than it looks

    # Smallest changes worth failing for, and the slowdown that a PASS excludes.
    latency_tolerance: float = 0.03
    speedup_tolerance: float = 0.02
    resolution: float = 0.05
    # A FAIL needs fresh processes to show this share of the tolerance, and this many sigma: one disturbed process in
    # three is common on shared machines and moves the mean of three past any normal-theory bound. All of three, and one
    # less for every four more.
    confirmation: float = 0.5
    confirmation_sigmas: float = 1.6
    processes_per_dissenter: int = 4
    # The median and the 95 % quantile: an estimate that is worse by more than this blocks a PASS.
    typical_resolution: float = 0.10

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
    default_typical_sigma: float = 0.06  # of medians and 95 % quantiles
    # The event clock's 0.5 us on 0.5 ms. Intervals go down to 0.05 ms, but there launches jitter over many such steps.
    sigma_floor: float = 0.001
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

    # A GPU whose median SM clock while timing is this much below all that the baseline's processes had is slower, and
    # so is what runs on it.
    clock_share: float = 0.03

    # Memory and size.
    memory_repeat_bytes: int = 512 * 1024  # below any tensor worth a name; used where repeats agree to the byte
    memory_relative: float = 0.01
    memory_minimum_bytes: int = 2 * 1024**2
    cpu_memory_relative: float = 0.05  # resident memory moves in whole arenas
    # A model measured alone, as a suspect is, took up to 5 MiB more than behind others, whose freed pages it used.
    cpu_memory_minimum_bytes: int = 8 * 1024**2
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

    @property
    def max_processes(self) -> int:
        """Fresh processes, at most, of a suspect."""
        return self.looks[-1]

    def look_of(self, processes: int) -> int:
        """The index of the look that so many fresh processes are enough for."""
        return max(bisect_right(self.looks, processes) - 1, 0)

    def more_processes(self, processes: int) -> int:
        """Fresh processes from here to the next look; 0 where there is none."""
        return next((look - processes for look in self.looks if look > processes), 0)

    def dissenters(self, processes: int) -> int:
        """Of so many fresh processes, those that need not confirm a change."""
        return max(processes - self.confirming_look + 1, 0) // self.processes_per_dissenter

    def fail_error(self, comparisons: int, processes: int, share: float) -> float:
        """The one-sided error of a single comparison of a metric that has ``share`` of the suite's.

        Before the confirming look nothing is spent: what is found there is only a suspicion, at that look's error.
        """
        look = max(self.look_of(processes), self.looks.index(self.confirming_look))
        return self.suite_error * share * self.fail_shares[look] / (max(comparisons, 1) * self.references)

    def pass_error_at(self, processes: int) -> float:
        """The one-sided error of excluding the resolution after so many fresh processes."""
        return self.pass_error * self.pass_shares[self.look_of(processes)]


DEFAULT = Policy()
