"""What the benchmarks that start `shoal` share. Needs nothing but Python."""

import json
import os
import pathlib
import platform
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build():
    """Builds `shoal` as its users do; returns its path."""
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str((ROOT / target / "release" / "shoal").resolve())


def objects(command, **options):
    """Runs a command that prints one JSON object a line; returns them."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options)
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def spread(values, digits=3):
    """Median, and the least and most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def machine():
    """One line that says what was measured on."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"
