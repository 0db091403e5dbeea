#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that may have no network and no package index: python3 with torch,
# transformers and pytest must be there, other packages are carried as wheels (CONTRIBUTING.md lists them).
#
#   tools/gpu_check.sh                         all stages; $OUT/results.tar.gz holds all they left
#   STAGES="2 3" tools/gpu_check.sh            some of them
#   STAGES=4 RESUME=results.tar.gz tools/gpu_check.sh     on with what an earlier call left: what it did is not repeated
#   CPU=1 tools/gpu_check.sh                   a rehearsal without a GPU, on one small model
#
# Stages                                                                                  its time limit, in seconds
#   1  what machine and which versions this is                                            LIMIT_1
#   2  the tests that need a GPU: all pass, none is skipped                               LIMIT_2
#   3  the suite, recorded into the baselines                                             LIMIT_3
#   4  the suite again in REPEATS fresh processes, recorded too                           LIMIT_4
#   5  the suite once more, unchanged: something is compared, and the gate holds          LIMIT_5
#   6  PROVOKE_MODELS under PROVOKE (precision=fraction slower): the gate must fail it    LIMIT_6
#   7  SERVING_MODELS at FP32 under load: a rate is stored, kept, and missed when slower  LIMIT_7
#
# Stages 3 to 5 measure each group of MODELS in a process of its own: a pair that fails voids the recording of its
# group, and a stage that runs into its limit (9 minutes: many runners end a command after 10) goes on from there when
# it is called again. A stage that fails does not stop the next; the script then exits with 1.
#   OUT        where results.tar.gz goes (gpu-results)     WHEELS      directory of carried wheels (wheels)
#   MODELS     groups of --vq-models, with spaces between  BASELINES   baselines to start from (none: empty)
#              them (a category each, and vit-digits)      RESUME      an earlier call's results.tar.gz
#   BUDGET     --vq-budget of stages 3 to 6                PYTHON      the python to use (python3)
set -uo pipefail
cd "$(dirname "$0")/.."

CPU=${CPU:-}
STAGES=${STAGES:-1 2 3 4 5 6 7}
OUT=${OUT:-gpu-results}
WHEELS=${WHEELS:-wheels}
PYTHON=${PYTHON:-python3}
REPEATS=${REPEATS:-4}
BASELINES=${BASELINES:-}
RESUME=${RESUME:-}
if [ -n "$CPU" ]; then
    DEVICE=() MODELS=${MODELS:-vit-digits} BUDGET=${BUDGET:-1}
    PROVOKE_MODELS=${PROVOKE_MODELS:-vit-digits} PROVOKE=${PROVOKE:-int8=0.50}
    SERVING_MODELS=${SERVING_MODELS:-vit-digits} SERVING_BUDGET=${SERVING_BUDGET:-10}
else
    DEVICE=(--gpu) MODELS=${MODELS:-} BUDGET=${BUDGET:-4}
    PROVOKE_MODELS=${PROVOKE_MODELS:-vit-base-patch16-384} PROVOKE=${PROVOKE:-int8=0.10}
    SERVING_MODELS=${SERVING_MODELS:-vit-digits} SERVING_BUDGET=${SERVING_BUDGET:-30}
fi
LIMIT_1=${LIMIT_1:-120} LIMIT_2=${LIMIT_2:-540} LIMIT_3=${LIMIT_3:-540}
LIMIT_4=${LIMIT_4:-540} LIMIT_5=${LIMIT_5:-540} LIMIT_6=${LIMIT_6:-540}
LIMIT_7=${LIMIT_7:-540}
LEAST=20 # seconds left below which no further group is begun

mkdir -p "$OUT"
scratch=$(mktemp -d)
kept=$scratch/results # what the archive will hold
site=$scratch/site    # carried packages, and this checkout's entry points
mkdir -p "$kept/baselines" "$kept/done" "$site"
log=$kept/summary.txt
failed=0

say() { printf '%s\n' "$*" | tee -a "$log"; }

# After every stage, and whole or not at all: a machine that is taken away in the middle leaves the stages before.
pack() { tar -czf "$OUT/.results.tmp" -C "$kept" . && mv "$OUT/.results.tmp" "$OUT/results.tar.gz"; }

finish() {
    pack
    rm -rf "$scratch"
}
trap finish EXIT
trap 'say "interrupted"; exit 130' INT TERM

install() {
    if compgen -G "$WHEELS/*.whl" >/dev/null; then
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
            --target "$site" "$WHEELS"/*.whl || return
    fi
    "$PYTHON" tools/gpu_steps.py install "$site" || return
    export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
    export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
}

# limited SECONDS COMMAND...: interrupted at its limit, so that pytest still writes what it has; killed a while after.
limited() { timeout --signal=INT --kill-after=30 "$@" </dev/null; }

# measure NAME LIMIT OPTION...: one pytest run of pairs, with its results, JUnit file and baselines kept.
measure() {
    local name=$1 limit=$2
    shift 2
    limited "$limit" "$PYTHON" -m pytest bench ${DEVICE[@]+"${DEVICE[@]}"} --vq-budget="$BUDGET" \
        --vq-baselines="$kept/baselines" --vq-output="$kept/vq-results-$name" --junitxml="$kept/junit-$name.xml" \
        -p no:cacheprovider "$@"
}

# groups NAME END OPTION...: a run for each group of models that has none yet, until END (in SECONDS of this script).
groups() {
    local name=$1 end=$2 number=0 status=0 group
    shift 2
    for group in $MODELS; do
        number=$((number + 1))
        [ -e "$kept/done/$name-$number" ] && continue
        if [ $((end - SECONDS)) -lt "$LEAST" ]; then
            echo "the stage's time is up before group $number ($group); go on with RESUME=<this call's results.tar.gz>"
            return 1
        fi
        echo "--- $name, group $number: $group"
        if measure "$name-$number" $((end - SECONDS)) --vq-models="$group" "$@"; then
            touch "$kept/done/$name-$number"
        else
            status=1
        fi
    done
    return $status
}

stage_1() {
    if [ -z "$CPU" ]; then
        limited "$LIMIT_1" nvidia-smi || return
        limited "$LIMIT_1" nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,TEMPERATURE,COMPUTE
    fi
    uname -a
    grep -m1 'model name' /proc/cpuinfo
    git log -1 --format=%H 2>/dev/null
    limited "$LIMIT_1" "$PYTHON" tools/gpu_steps.py report "$([ -n "$CPU" ] && echo cpu || echo gpu)"
}

stage_2() {
    limited "$LIMIT_2" "$PYTHON" -m pytest tests -m gpu -p no:cacheprovider -rA --durations=10 \
        --junitxml="$kept/junit-2.xml"
    local status=$?
    if [ -n "$CPU" ]; then
        [ $status -eq 0 ] || [ $status -eq 5 ] # all skipped, or none there: this is a rehearsal
    else
        [ $status -eq 0 ] && "$PYTHON" tools/gpu_steps.py all_ran "$kept/junit-2.xml"
    fi
}

# Ungated: the spread of an unchanged tree is what is recorded here, and dropping its odd runs would understate it.
stage_3() { groups 3 $((SECONDS + LIMIT_3)) --vq-save --vq-gate=off; }

stage_4() {
    local number status=0 end=$((SECONDS + LIMIT_4))
    for number in $(seq "$REPEATS"); do
        groups "4-$number" "$end" --vq-save --vq-gate=off || status=1
    done
    return $status
}

stage_5() {
    local status=0
    groups 5 $((SECONDS + LIMIT_5)) || status=1
    "$PYTHON" tools/gpu_steps.py compared "$kept"/vq-results-5-*/results.csv || status=1
    return $status
}

stage_6() {
    measure 6 "$LIMIT_6" -p pytest_vq.plugin.provoke --vq-models="$PROVOKE_MODELS" --provoke-slowdown="$PROVOKE"
    local status=$?
    echo "exit code $status, where 1 is expected"
    # The exit code alone could be any failing test's: the slowed rows must say FAIL, and no other.
    [ $status -eq 1 ] && "$PYTHON" tools/gpu_steps.py caught "$kept/vq-results-6/results.csv" "$PROVOKE"
}

stage_7() {
    local end=$((SECONDS + LIMIT_7)) status=0
    local load=(--vq-serving -k test_serving --vq-models="$SERVING_MODELS" --vq-precisions=fp32 --vq-budget="$SERVING_BUDGET")
    measure 7-stored "$LIMIT_7" "${load[@]}" --vq-save || status=1
    measure 7-unchanged $((end - SECONDS)) "${load[@]}" || status=1
    # On a CPU sender and model share processors: what is asked here is often left undecided there.
    [ -n "$CPU" ] && return $status
    "$PYTHON" tools/gpu_steps.py compared "$kept/vq-results-7-unchanged/results.csv" || status=1
    measure 7-slower $((end - SECONDS)) "${load[@]}" -p pytest_vq.plugin.provoke --provoke-slowdown=fp32=1.0
    echo "exit code $?, where 1 is expected"
    "$PYTHON" tools/gpu_steps.py caught "$kept/vq-results-7-slower/results.csv" fp32=1.0 || status=1
    return $status
}

run_stage() {
    local number=$1 started=$SECONDS result=ok
    say "=== stage $number"
    "stage_$number" 2>&1 | tee "$kept/stage-$number.log"
    if [ "${PIPESTATUS[0]}" -ne 0 ]; then
        result=FAILED
        failed=1
    fi
    say "=== stage $number: $result after $((SECONDS - started)) s"
    pack
}

if [ -n "$RESUME" ]; then
    tar -xzf "$RESUME" -C "$kept" || exit 1
fi
if [ -n "$BASELINES" ]; then
    cp -r "$BASELINES"/. "$kept/baselines/" || exit 1
fi
install || { say "could not install the wheels of $WHEELS"; exit 1; }
MODELS=${MODELS:-$("$PYTHON" tools/gpu_steps.py groups)}
[ -n "$MODELS" ] || { say "no models to measure"; exit 1; }
for number in $STAGES; do
    if ! declare -F "stage_$number" >/dev/null; then
        say "there is no stage $number"
        exit 2
    fi
    run_stage "$number"
done
say "results: $OUT/results.tar.gz"
exit $failed
