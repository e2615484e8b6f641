"""Plays the matrix under Recyclery and with Celery alone, prints the table, and writes it into the docs.

    cd tests && ../.venv/bin/python -m delivery.apps.compare [--write]

It takes some fifteen minutes on two cores. `--write` puts the table between its markers in docs/guarantees.md.
"""

import argparse
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from delivery.apps.containers import ours, stock
from delivery.apps.play import Player, Start
from delivery.apps.table import EARLY
from delivery.apps.ways import Outcome, Way, is_late, promised

DOCS = Path(__file__).parents[3] / "docs" / "guarantees.md"
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"
SIDES: Mapping[str, Start] = {"recyclery": ours, "celery": stock, "late": partial(stock, late=True)}
HEADERS = ("what happens", "promised, and seen", "Celery alone", "Celery, both settings")
AT_A_TIME = 4 * (os.cpu_count() or 1)
"""Most of it waits."""
LATE = tuple(shape for shape in EARLY if is_late(shape))
Found = Mapping[Way, Outcome | str]


@contextmanager
def playing(start: Start, ways: Mapping[str, Collection[Way]]) -> Iterator[dict[str, Future[Found]]]:
    """Play these ways of each shape, several at a time; what waits as the block ends is dropped."""
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        try:
            yield {
                shape: threads.submit(Player(shape, start, chosen, list_clear(start, shape)).play)
                for shape, chosen in ways.items()
            }
        finally:
            threads.shutdown(cancel_futures=True)


def list_clear(start: Start, shape: str) -> list[Way]:
    """Return the ways in which something other than a loss is promised: it will be seen in the end."""
    return [way for way in Way if start is ours and promised(shape, way) is not Outcome.LOST]


def count_outcomes(outcomes: Collection[Outcome | str]) -> str:
    """Return each outcome, the most frequent first, with its number where they differ."""
    counts = {each: [*outcomes].count(each) for each in outcomes}
    ranked = sorted(counts, key=lambda each: (-counts[each], each))
    return ranked[0] if len(counts) == 1 else ", ".join(f"{each} ({counts[each]})" for each in ranked)


def make_rows(found: Mapping[str, Mapping[str, Found]]) -> list[tuple[str, ...]]:
    """Return the table's rows: of each side (by its name) and shape, what became of the tasks."""
    return [
        (way, *(count_outcomes([played[shape][way] for shape in LATE]) for played in found.values()))
        for way in Way
    ]


def format_table(rows: Collection[tuple[str, ...]]) -> str:
    """Return the table in Markdown."""
    lines = [HEADERS, ("---",) * len(HEADERS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the docs."""
    table = DOCS.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()[2:]]


def write_table(table: str) -> None:
    """Put the table between its markers."""
    before, begin, rest = DOCS.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    DOCS.write_text(f"{before}{begin}\n{table}{end}{after}")


def play_all(start: Start) -> dict[str, Found]:
    """Play every cell of one side, and print what is not as Recyclery promises it."""
    with playing(start, dict.fromkeys(EARLY, tuple(Way))) as played:
        found = {}
        for shape, future in played.items():
            found[shape] = future.result()
            for way, outcome in found[shape].items():
                if outcome != promised(shape, way):
                    print(f"{shape}: {way}: {outcome}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    options = parser.parse_args()
    found = {}
    for side, start in SIDES.items():
        print(f"{side}:")
        found[side] = play_all(start)
    table = format_table(make_rows(found))
    print(table)
    if options.write:
        write_table(table)


if __name__ == "__main__":
    main()
