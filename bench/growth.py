"""`python -m bench.growth`: how the processor time of questions grows with the number of live workloads.

Of each size a database is made and asked by `bench.targets`, without parallel workers, whose time would be
missing: so what is compared is all the work of a question. The time of a question is that of its heaviest
address in its best round; its exponent is the slope of the straight line through the logarithms, by least
squares: 0 does not grow, 1 grows as the workloads do. What is shown for ten times the largest size is that line
carried on, which nobody measured.
"""

import argparse
import asyncio
import json
import math
from pathlib import Path

import asyncpg

from bench.targets import figures, filled

SIZES = (10_000, 100_000, 1_000_000)
Figures = dict[int, list[dict[str, object]]]
"""By size."""


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through these points, by least squares."""
    middle_x, middle_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    rise = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return rise / sum((x - middle_x) ** 2 for x, _ in points)


def growth(taken: dict[int, float]) -> tuple[float, float]:
    """The exponent, and the milliseconds at ten times the largest size, for milliseconds by size."""
    exponent = slope([(math.log(size), math.log(ms)) for size, ms in taken.items()])
    return exponent, taken[max(taken)] * 10 ** max(exponent, 0.0)


def markdown(measured: Figures) -> str:
    sizes = sorted(measured)
    rows = [
        "| question | may take | "
        + " | ".join(f"{size:,}" for size in sizes)
        + f" | exponent | {10 * sizes[-1]:,}, carried on |",
        "|" + "---|" * (len(sizes) + 4),
    ]
    for lines in zip(*(measured[size] for size in sizes), strict=True):
        taken = {
            size: float(str(line["processor_ms"])) for size, line in zip(sizes, lines, strict=True)
        }
        if str(lines[-1]["question"]).endswith(", deleted"):
            continue  # nothing is deleted in these databases
        if not all(0 < ms < math.inf for ms in taken.values()):
            continue  # of what was not answered there is no growth
        exponent, beyond = growth(taken)
        rows.append(
            f"| {lines[-1]['question']} | {lines[-1]['may_take_ms']:g} ms | "
            + " | ".join(f"{ms:g} ms" for ms in taken.values())
            + f" | {exponent:.2f} | {beyond:.0f} ms |"
        )
    return "\n".join(rows)


async def _work_alone(url: str) -> None:
    """From the next connection on no query has workers."""
    connection = await asyncpg.connect(url)
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"ALTER DATABASE {name} SET max_parallel_workers_per_gather = 0")
    await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="kinds of questions whose name contains this")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("growth"),
        help="keeps SIZE.json of each size, as --json of bench.targets writes it; a size "
        "whose file is there is not asked again",
    )
    parser.add_argument(
        "--largest-url", help="a database that is filled already, of the largest size"
    )
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    measured: Figures = {}
    for size in sorted(options.sizes):
        file = options.folder / f"{size}.json"
        if not file.exists():
            is_there = options.largest_url and size == max(options.sizes)
            database_url = options.largest_url if is_there else None
            async with filled(database_url, workloads=size, live=size) as url:
                await _work_alone(url)
                lines = await figures(url, rounds=options.rounds, only=options.only)
            file.write_text(json.dumps(lines, indent=1) + "\n")
        measured[size] = json.loads(file.read_text())
    print(markdown(measured))


if __name__ == "__main__":
    asyncio.run(main())
