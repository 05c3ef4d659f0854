"""One model trained by several processes: mpirun with 2 and 4 ranks against one process.

What breaks when it fails: a model trained on a cluster is not the one that its recipe, seed and data say, or a rank that fails leaves the others
waiting. Skipped (exit 77) without mpirun, or where duet was built without MPI.
"""
import array
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

BIN = os.path.join(os.environ["DUET_BIN_DIR"], "duet")
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
ENV = dict(os.environ, ASAN_OPTIONS="detect_leaks=0",  # Open MPI keeps memory at its end
           OMPI_MCA_mpi_yield_when_idle="1",  # more ranks than cores
           OMPI_MCA_btl_vader_single_copy_mechanism="none")  # containers forbid it, and Open MPI would say so
SMALL = ["--epochs", "3", "--patience", "0", "--quiet", "--threads", "1", "--k", "8"]
# What each has of its own: a_u in closed form, a table, no a_u; whole catalogue, sampled, pairs; which terms of the loss.
CASES = {
    "closed": ["--model", "dat", "--widths", "24,12", "--learn-scale"],
    "denoised": ["--model", "dat", "--widths", "24,12", "--window", "0", "--denoise", "0.35"],
    "table": ["--model", "dat", "--widths", "24,12", "--aug", "table", "--oov-dropout", "0.2", "--feature-dropout", "0.1"],
    "two_tower": ["--model", "two_tower", "--widths", "24,8", "--weight-decay", "0.01"],
    "sampled": ["--model", "dat", "--widths", "24,12", "--loss", "sampled", "--negatives", "50", "--threads", "2"],
    "paper": ["--model", "dat", "--recipe", "paper", "--widths", "24,12", "--keep-going"],
}


def fail(text):
    sys.exit("mpi: " + text)


def run(ranks, *args, ok=0):
    command = (MPIRUN + ["-n", str(ranks)] if ranks > 1 else []) + [BIN, *args]
    p = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=600)
    if ok is not None and p.returncode != ok:
        fail(f"{' '.join(command)}: exit {p.returncode}, want {ok}\n{p.stdout}\n{p.stderr}")
    return p


def train(ranks, out, *args):
    run(ranks, "train", "--data", "data.duet", "--out", out, *SMALL, *args)


def log(out):
    with open(f"{out}/train.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack("<Q", data[:8])
    found = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__" and t["dtype"] == "F32":
            found[name] = array.array("f", data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
    return found


def rms(x):
    return (sum(v * v for v in x) / max(len(x), 1)) ** 0.5


def same_run(one, other):
    """Losses, validation and every tensor, up to sums in another order, which steps amplify: as much as a second thread would."""
    a, b = log(one), log(other)
    if len(a) != len(b):
        fail(f"{other}: {len(b)} epochs, {one} has {len(a)}")
    for x, y in zip(a, b):
        for part in ("loss", "main", "mimic_u", "mimic_v", "cal", "logit_scale"):
            if abs(x[part] - y[part]) > (1e-6 if x["epoch"] == 1 else 5e-4) * abs(x[part]) + 1e-7:
                fail(f"{other}: epoch {x['epoch']}: {part} {y[part]}, {one} has {x[part]}")
        for m in ("hr@50", "hr@100", "mrr"):
            if abs(x["validation"][m] - y["validation"][m]) > 4e-3:  # a user or two of 600 at a tie
                fail(f"{other}: epoch {x['epoch']}: {m} {y['validation'][m]}, {one} has {x['validation'][m]}")
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = tensors(f"{one}/{name}"), tensors(f"{other}/{name}")
        if a.keys() != b.keys():
            fail(f"{other}/{name} has other tensors than {one}")
        for t, x in a.items():
            off = rms([p - q for p, q in zip(x, b[t])])
            if off > 5e-2 * rms(x) + 1e-6:
                fail(f"{other}/{name}: {t} is off by {off:.2e} (rms), its size is {rms(x):.2e}")


def same_bits(one, other):
    for name in ("model.safetensors", "optimizer.safetensors"):
        with open(f"{one}/{name}", "rb") as a, open(f"{other}/{name}", "rb") as b:
            if a.read() != b.read():
                fail(f"{one}/{name} and {other}/{name} differ")


def ranks_agree_with_one_process():
    for case, options in CASES.items():
        for ranks in (1, 2, 4):
            train(ranks, f"{case}-{ranks}", *options)
            if ranks > 1:
                same_run(f"{case}-1", f"{case}-{ranks}")


def runs_repeat_to_the_bit():
    train(4, "again", *CASES["closed"])
    same_bits("closed-4", "again")


def ranks_under(pid):
    """Processes of duet that this mpirun started."""
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat", encoding="ascii") as f:
                name, rest = f.read().rsplit(")", 1)
            if int(rest.split()[1]) == pid and name.endswith("(duet"):
                found.append(int(p))
        except OSError:
            pass
    return found


def a_killed_rank_ends_the_run_which_resumes():
    """Killed by SIGKILL after its first epochs: two ranks go on to the bits of a run that was not, and three go on too."""
    job = subprocess.Popen([*MPIRUN, "-n", "2", BIN, "train", "--data", "data.duet", "--out", "killed", *SMALL, *CASES["closed"],
                            "--epochs", "4000"], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not os.path.exists("killed/optimizer.safetensors") and job.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    ranks = ranks_under(job.pid)
    if len(ranks) != 2:
        fail(f"found {len(ranks)} ranks under mpirun, want 2")
    os.kill(ranks[1], signal.SIGKILL)
    if job.wait(timeout=300) == 0:
        fail("mpirun ended well though a rank was killed")
    done = max(len(log("killed")), 3)  # the line of an epoch comes after its state
    options = [*SMALL, *CASES["closed"], "--epochs", str(done + 2)]
    shutil.copytree("killed", "killed-2")
    run(2, "train", "--data", "data.duet", "--out", "killed-2", *options, "--resume")
    run(2, "train", "--data", "data.duet", "--out", "whole", *options)
    same_bits("killed-2", "whole")
    run(3, "train", "--data", "data.duet", "--out", "killed", *options, "--resume")
    a, b = log("whole")[-1], log("killed")[-1]
    if a["epoch"] != b["epoch"] or abs(a["loss"] - b["loss"]) > 2e-3 * a["loss"]:
        fail(f"resumed by 3 ranks: epoch {b['epoch']}, loss {b['loss']}; never killed: epoch {a['epoch']}, loss {a['loss']}")


def a_rank_that_fails_ends_all_with_a_reason():
    head = [*MPIRUN, "-n", "1", BIN, "train", *SMALL, "--out", "failed", "--data", "data.duet", ":", "-n", "1", BIN, "train", *SMALL,
            "--out", "failed", "--data"]
    for data, word in (("/none.duet", "rank 1 of 2: "), ("other.duet", "not the same at every rank")):
        p = subprocess.run([*head, data], capture_output=True, text=True, env=ENV, timeout=300)
        if p.returncode == 0 or word not in p.stderr:
            fail(f"a rank with {data}: exit {p.returncode}, want a failure that says \"{word}\":\n{p.stderr}")
    p = run(2, "train", "--data", "data.duet", "--out", "failed", "--model", "wals", ok=2)
    if p.stderr.count("trains in one process") != 1:
        fail(f"wals by 2 ranks: want one line that it trains in one process:\n{p.stderr}")


def srun_is_known_by_pmix():
    """Under srun --mpi=pmix there is a PMIx rank and the step's number of tasks, but not what mpirun alone says."""
    srun = [*MPIRUN, "-n", "2", "env", "-u", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS=2", BIN, "train", "--data", "data.duet"]
    p = subprocess.run([*srun, "--out", "failed", "--model", "wals"], capture_output=True, text=True, env=ENV, timeout=300)
    if p.returncode == 0 or p.stderr.count("trains in one process, 2 were started") != 1:
        fail(f"wals by 2 tasks of srun: exit {p.returncode}, want a failure and one line that it trains in one process:\n{p.stderr}")
    p = subprocess.run([*srun, "--out", "srun", *SMALL, *CASES["closed"]], capture_output=True, text=True, env=ENV, timeout=300)
    if p.returncode != 0:
        fail(f"2 tasks of srun: exit {p.returncode}\n{p.stderr}")
    same_bits("closed-2", "srun")


def main():
    if not shutil.which("mpirun"):
        print("skipped: no mpirun (sh deploy/setup.sh mpi installs it)")
        sys.exit(77)
    work = tempfile.mkdtemp(prefix="duet-mpi-")
    try:
        os.chdir(work)
        for name, seed in (("data", "1"), ("other", "2")):
            run(1, "synth", "--out", f"{name}-raw", "--users", "600", "--items", "300", "--interactions", "12000", "--seed", seed)
            run(1, "prepare", "--in", f"{name}-raw", "--out", f"{name}.duet")
        p = run(2, "train", "--data", "data.duet", "--out", "first", *SMALL, ok=None)
        if "built without MPI" in p.stderr:
            print("skipped: duet was built without MPI")
            sys.exit(77)
        ranks_agree_with_one_process()
        runs_repeat_to_the_bit()
        srun_is_known_by_pmix()
        a_rank_that_fails_ends_all_with_a_reason()
        a_killed_rank_ends_the_run_which_resumes()
    finally:
        shutil.rmtree(work)


main()
