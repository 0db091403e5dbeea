"""The words around the tables of ``docs/calibration.md``."""

HEAD = """\
# Calibration of the gate

Written by `python -m bench.calibration`; do not edit by hand. The constants are `pytest_vq/gate/policy.py`'s.

## Simulated suites

Suites of 64 pairs (16 of them FP32, which have no speedup to judge), 5 or 15 baseline processes, judged after 1, 2, 3,
6 and 10 fresh ones: what may still become a PASS is measured again until the sixth, what may become a FAIL until the
tenth, and a FAIL counts from the third on. Four metrics: the 10 % quantile and the paired speedup decide; a median
(3 times as noisy) and a 95 % quantile (4 times) may fail too, and block a PASS beyond 10 %. Per-pair figures behind the
bar. *Suites with a false FAIL* (target: at most 1 %): nothing changed, any of the 64 pairs failed in any metric. *On
one look*: the same, and pairs found at +5 %, if the first fresh process were believed without confirmation. *PASS* and
*processes*: of unchanged pairs. *+5 %, +10 %*: a true slowdown of every pair; in brackets, pairs with absolute time
alone. *PASS at +5 %* (target: at most 1 %): pairs whose true slowdown of 5 % was waved through.

Noise: `normal`; `autocorrelated samples` (10 % quantiles of 40 skewed samples each); `unequal pairs` (sigma differs
by a factor of 5 between pairs); `wild pairs` (one in twenty is 8 times as noisy); `heavy tails` (t with 4 degrees of
freedom); `disturbed processes` (3 % of all are slowed by 8 % on average); `common shocks` (half of the variance is
shared by all pairs of a process). In the last three the machine's own pace varies on top of sigma, and every pair
follows it by a share of its own, 0.3 to 1 of it in time and -0.3 to 0.3 in speedup: `pace` (by 2 sigma from process to
process; the sentinel sees it with an error of 0.5 sigma); `drift` (a random walk of 0.3 sigma from one process to the
next; an error of 0.3 sigma); `drift, no sentinel` (the same walk, seen by nothing: absolute time then has no more than
three fresh processes, since all of them wander together). That a sentinel far from its usual time makes a row
INCONCLUSIVE is left out here.

| noise between processes | sigma | baseline processes | suites with a false FAIL | \
on one look: false FAIL / +5 % found | PASS | processes | FAIL at +5 % | FAIL at +10 % | PASS at +5 % |
|---|---|---|---|---|---|---|---|---|---|"""

ESTIMATES = """
## Which estimate is steady

Standard deviation between processes (of logs) of one process's estimate: absolute time, then time relative to FP32's
in the same process. *Given the sentinel*: what a regression on the sentinel's time leaves, as the gate fits it
(`pytest_vq/gate/covariance.py`). The gate takes the 10 % quantile and the median of adjacent ratios, each given the
sentinel where there is one.

| recording | median | 10 % quantile | minimum | 10 % quantile given the sentinel | ratio of medians | median of \
adjacent ratios | the same given the sentinel | ratio of 10 % quantiles |
|---|---|---|---|---|---|---|---|---|"""

REPLAYS = """
## Recorded processes

Processes of unchanged code, drawn without replacement 200 times (baseline and up to 10 fresh, or what the recording has
left), through the real `decide` with the error rate of a 64-pair suite; the slowdown multiplies the low-precision
samples of the fresh ones. Figures are shares of comparisons, all timed metrics together. Draws from a few dozen
processes are not independent: read them as a check on the simulation, not as an estimate of small probabilities. One
baseline process is the uncalibrated rule (10 % on time, 5 % on speedup), which carries no error guarantee.

`cpu_deit_tiny`: DeiT-Tiny, random weights, FP32 and BF16 in turns, 80 samples each, on a shared 2-core virtual machine,
idle or with two bursty CPU-bound neighbours; two baseline pairs are too few for a pool. `cpu_blocks`: three blocks of a
vision model in FP32 and BF16 and a sentinel, 40 samples each, on such a machine under other people's load.
`cpu_hours`: DeiT-Tiny INT4 and INT8 with the sentinel, beside tests on the other core, and while the host was
overloaded. `cpu_selftest`: the estimates of every unchanged process of one `pytest-vq selftest` (README), DeiT-Tiny
INT4 with the sentinel, and of 20 more the next hour. In the last rows the fresh processes are of another hour
than the baseline: there, doubt is right.

| recording (processes) | baseline processes | false FAIL | PASS | IMPROVED | processes | FAIL at +5 % | \
FAIL at +10 % | PASS at +5 % |
|---|---|---|---|---|---|---|---|---|"""

SMALL = """
## A small project

The same, at the error rate of a project of two pairs: one net, FP32 and one precision, 5 baseline processes, no pool to
learn from. `cpu_small`: a transformer of four blocks (`my-net`) at INT8, on two shared cores without BF16, beside other
work on the second one.

| recording (processes) | baseline processes | false FAIL | PASS | processes | FAIL at +5 % | FAIL at +10 % | \
FAIL at +20 % |
|---|---|---|---|---|---|---|---|"""

RIVALS = """
## Other tools on the same records

BF16 time of `cpu_deit_tiny`; failures at no change / +5 % / +10 %. Each rule is called in its installed package:
`pip install --no-deps --target build/rivals pytest-torch==1.1.1 benchmatrix==1.2.1 inference-doctor==0.4.1`, then
`PYTHONPATH=build/rivals python -m bench.calibration`.

| rule | processes, baseline v candidate | idle, 1 thread | busy, 1 thread |
|---|---|---|---|"""

SPEED = """
## Cost

`learn_noise` and `decide` for 1,000 pairs of 20 processes: {seconds:.2f} s."""

TAIL = """
## What this does not show

- With {suites} unchanged suites a row's false FAILs are known to about +-0.3 percentage points at 1 %.
- *On one look* is far above the target under heavy tails and disturbed processes: a FAIL must be confirmed in fresh
  processes before it is believed. Where that is impossible, treat it as a suspicion.
- A third of the suite's error is left unspent, and `common shocks` needs most of it: the pool takes pairs for
  independent.
- What is merely open takes up to six processes, a suspect up to ten: in a loud hour a suite takes up to twice the
  processes that three looks took, and leaves fewer pairs undecided.
- Where a recording has no sentinel (`cpu_deit_tiny`), a median that looks 10 % slower blocks a PASS with nothing to
  explain it, and absolute time has no more than three processes: fewer PASS than three looks at the 10 % quantile gave.
- Two threads on two shared cores, and small blocks on an overloaded machine, are noisier (4 to 30 %) than anything
  simulated, in two modes that may last for several processes. 5 baseline processes that all met the fast mode do not
  know of the slow one: a few false FAILs in a thousand comparisons, where the rule asks for one in ten thousand. One
  baseline process is worse. There the machine's load has to be seen (a disturbance, the sentinel), or avoided.
- DeiT-Tiny on an idle machine varies by 1.6 % in time and 1.1 % in ratio: above the sigma of 1 % up to which 5 % is to
  be found in 99 % of cases.
- A baseline knows the noise of the hours it was recorded in. Against processes of a louder hour, up to 0.5 % of
  comparisons failed falsely with 15 baseline processes, where the rule asks for one in ten thousand, and up to 5 % with
  one; nearly all others were left undecided. Save on several days, and not all in calm hours.
- `drift, no sentinel` misses the target: where the machine itself wanders and nothing measures it, its history is not
  a sample of its future. There, compare by speedup, or side by side.

{minutes:.1f} minutes on one core.
"""
