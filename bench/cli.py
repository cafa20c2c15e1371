"""How long the command line lets one wait before it does anything: `python -m bench.cli`.

Each command runs in turn with an empty Python program, round after round; it prints medians and their ratio.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "watchbill --help": ["-m", "watchbill", "--help"],
    "watchbill get --help": ["-m", "watchbill", "get", "--help"],
    "watchbill version": ["-m", "watchbill", "version"],
}


def run(rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    least = statistics.median(seconds["python -c pass"])
    for name, durations in seconds.items():
        median = statistics.median(durations)
        print(f"{name:24} {median * 1000:6.0f} ms  {median / least:5.1f} × python -c pass")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.cli", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    run(parser.parse_args().rounds)
