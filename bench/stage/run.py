"""Runs our stage and PyTorch's in turns, step by step, and prints a Markdown table.

    python run.py [--steps 15] [--long] [--parts]

Needs torch in this Python. Build first: cargo build --release (CARGO_TARGET_DIR is honoured).
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
BLOCK_WEIGHTS = 4 * 512 * 512 + 3 * 512 * 1376


def start(name, sequence, batch, threads):
    if name in ("bench-stage", "products"):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
        command = [target / "release" / name]
    else:
        command = [sys.executable, HERE / "peer.py", name]
    command += [str(sequence), str(batch), str(threads)]
    pipe = subprocess.PIPE
    # Idle OpenMP threads must sleep, or they take the processors from whoever's turn it is.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1,
                            env=environment)


def ask(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return [float(x) for x in process.stdout.readline().split()]


def measure(sequence, batch, threads, steps):
    names = ["ours", "eager", "fused"]
    programs = {"ours": "bench-stage", "eager": "eager", "fused": "fused"}
    processes = {name: start(programs[name], sequence, batch, threads) for name in names}
    times = {name: [] for name in names}
    for step in range(steps + 2):
        for name in names:
            seconds = ask(processes[name], "step")
            if step >= 2:
                times[name].append(seconds)
    peaks = {name: ask(processes[name], "end")[0] for name in names}
    return times, peaks


def table(sequence, batch, threads, steps):
    times, peaks = measure(sequence, batch, threads, steps)
    flops = 4 * (6 * BLOCK_WEIGHTS + 6 * 512 * (sequence + 1)) * batch * sequence
    print(f"\nSequence {sequence}, batch {batch}, {threads} threads, {steps} steps in turns, {flops / 1e9:.1f} GFLOP a step.\n")
    print("| | step, median (quartiles) | forward | backward | processor time | GFLOP/s | peak memory | ours is faster by (paired median) | in processor time | ours / its memory |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in times:
        whole = [t[0] for t in times[name]]
        q1, median, q3 = statistics.quantiles(whole, n=4)
        ratio = statistics.median(t[0] / o[0] for t, o in zip(times[name], times["ours"]))
        busy = statistics.median(t[3] for t in times[name]) / statistics.median(t[3] for t in times["ours"])
        part = lambda i: f"{statistics.median(t[i] for t in times[name]) * 1e3:.0f} ms"
        print(f"| {name if name == 'ours' else 'PyTorch ' + name} | {median * 1e3:.0f} ms ({q1 * 1e3:.0f} to {q3 * 1e3:.0f}) "
              f"| {part(1)} | {part(2)} | {part(3)} | {flops / median / 1e9:.0f} | {peaks[name] / 2**20:.0f} MiB | {ratio:.2f}x | {busy:.2f}x | {peaks['ours'] / peaks[name]:.2f} |")
    return peaks


def parts(sequence, batch, threads, steps):
    """Where our time goes: each part measured apart, in turns with the whole."""
    whole, flat = start("bench-stage", sequence, batch, threads), start("bench-stage", 1, batch * sequence, threads)
    alone = start("products", sequence, batch, threads)
    times = {"whole": [], "products": [], "adamw": [], "flat": []}
    for step in range(steps + 2):
        all_, forward, backward, _ = ask(whole, "step")
        flat_all = ask(flat, "step")
        products = ask(alone, "step")[0]
        if step >= 2:
            times["whole"].append(all_)
            times["adamw"].append(all_ - forward - backward)
            times["flat"].append(flat_all[1] + flat_all[2])
            times["products"].append(products)
    for process in (whole, flat, alone):
        ask(process, "end")
    median = {name: statistics.median(values) for name, values in times.items()}
    attention = median["whole"] - median["adamw"] - median["flat"]
    rest = median["flat"] - median["products"]
    print(f"\nWhere our time goes at sequence {sequence}, batch {batch}, {steps} steps, each part in turns with the whole.\n")
    print("| part | time, median | share | how it was measured |\n|---|---|---|---|")
    for name, seconds, how in (
        ("whole step", median["whole"], "as above"),
        ("matrix products of the linear layers", median["products"], "the same products by `gemm` alone"),
        ("attention", attention, f"forward and backward less those of {batch * sequence} sequences of 1 token"),
        ("norms, RoPE, SwiGLU, residuals, and what products lose inside", rest, "those, less the products alone"),
        ("AdamW", median["adamw"], "the step"),
    ):
        print(f"| {name} | {seconds * 1e3:.0f} ms | {100 * seconds / median['whole']:.0f} % | {how} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--long", action="store_true", help="also sequences 1024 and 2048, batch 1")
    parser.add_argument("--parts", action="store_true", help="also where our time goes")
    options = parser.parse_args()
    table(256, 4, options.threads, options.steps)
    if options.parts:
        parts(256, 4, options.threads, options.steps)
    if options.long:
        for sequence in (1024, 2048):
            table(sequence, 1, options.threads, max(3, options.steps // 3))
