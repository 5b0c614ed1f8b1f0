#!/usr/bin/env bash
# A thread that ran one operation of torch and then only sleeps changes how all other threads of the process wait.
#
# torch 2.13.0 (CPU, GNU OpenMP), Linux, as many torch threads as cores (OMP_NUM_THREADS=2 on two processors here).
# Between two parallel operations torch's second thread spins for milliseconds, so that the next one finds it awake. GNU
# OpenMP counts the threads of all teams of a process, idle ones too: when a second Python thread has called one parallel
# operation, its team exists until that thread ends, there are more threads than processors, and from then on every
# thread sleeps almost at once. Nothing in torch tells. Seen on two cores, beside other work: operations with pauses of
# 1 ms between them took 0.40 of a processor before, 0.06 beside the thread that sleeps, and 0.39 after it had ended.
# Expected by most: a thread that waits for an event costs nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6
cat >"$folder/idle_team.py" <<'PY'
import os
import threading
import time

import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
x = torch.zeros(200_000)


def processors():
    """Processor seconds a second, of parallel operations with pauses of a millisecond between them."""
    began, used = time.perf_counter(), time.process_time()
    for _ in range(300):
        x.add_(1.0)
        time.sleep(0.001)
    return (time.process_time() - used) / (time.perf_counter() - began)


def one_operation_then_sleep(leave):
    torch.zeros(200_000).add_(1.0)
    leave.wait()


alone = max(processors() for _ in range(3))
leave = threading.Event()
thread = threading.Thread(target=one_operation_then_sleep, args=(leave,))
thread.start()
time.sleep(0.2)
beside = min(processors() for _ in range(3))
leave.set()
thread.join()
after = max(processors() for _ in range(3))
print(f"processors used: alone {alone:.2f}, beside a sleeping thread {beside:.2f}, after it {after:.2f}")
assert beside < 0.6 * alone and beside < 0.6 * after, "an idle team no longer changes how threads wait"
PY
# two processors, whatever the machine has
cpus=$(python3 -c 'import os; print(",".join(map(str, sorted(os.sched_getaffinity(0))[:2])))')
env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_NUM_THREADS=2 taskset -c "$cpus" "$folder/venv/bin/python" "$folder/idle_team.py"
