"""The report of `python -m benchmarks gpu` as tables for the terminal, and what is wrong in it."""

import json
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError
from benchmarks.gpu.contenders import SEARCHES
from benchmarks.gpu.exact import EXACT, PRECISIONS
from benchmarks.gpu.flash import FLASHES
from benchmarks.gpu.goals import verdicts
from benchmarks.gpu.graphs import as_graph, named_graph
from benchmarks.gpu.others import CDIST_TOPK, FIT, K_NEAREST, TUNE
from benchmarks.gpu.profiling import Launched, by_short_name, total_us
from benchmarks.gpu.speed import HOST, KERNELS, SEARCH
from benchmarks.gpu.tiles import TIME as TILES
from benchmarks.gpu.times import medians, of_kind, steps
from benchmarks.gpu.units import SINGLE, UNITS
from benchmarks.kernels.rivals import ADDMM, CDIST, FLASH, OURS
from benchmarks.sheets import NOTHING, Sheet

SLOWEST = 4  # kernels of a call that the table shows
FASTEST_TILES = 5  # of a shape that the table shows, besides the present ones


def read(path: Path) -> dict[str, Any]:
    """Return the report in a file, or in a folder that the command wrote. Raises: InputError."""
    path = path / "gpu.json" if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("benchmark") != "gpu" or "stages" not in record:
        raise InputError(f"{path} is not a report of `python -m benchmarks gpu`")
    return record


def failures(stage: dict[str, Any]) -> dict[str, str]:
    """Return the error of each part that has one."""
    return {part: numbers["error"] for part, numbers in stage["parts"].items() if "error" in numbers}


def has_failed(record: dict[str, Any]) -> bool:
    """Return whether a part or a test failed, an exact index is wrong, or the bound does not hold."""
    return any(
        "error" in numbers
        or numbers.get("failed")
        or numbers.get("certain but wrong")
        or numbers.get("wrong_share", {}).get(EXACT)
        or numbers.get("share_of_bound", 0) > 1
        for stage in record["stages"].values()
        for numbers in stage["parts"].values()
    )


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return the tables that have rows; last, those of the goals and of the stages."""
    speed = record["stages"].get("speed", {"parts": {}})["parts"]
    exact = record["stages"].get("exact", {"parts": {}})["parts"]
    made = [
        exact_sheet({part: numbers for part, numbers in exact.items() if "wrong_share" in numbers}),
        sums_sheet({part: numbers for part, numbers in exact.items() if "share_of_bound" in numbers}),
        unit_sheet({part: numbers for part, numbers in exact.items() if "kept" in numbers}),
        host_sheet({part: numbers for part, numbers in speed.items() if "eager_us" in numbers}),
        kernel_sheet(speed),
        other_sheet(speed),
        tune_sheet(speed),
        step_sheet(speed),
        search_sheet(_timed(speed, SEARCH)),
        tile_sheet(record["stages"].get("tiles", {"parts": {}})["parts"]),
    ]
    goals = [] if record["interpreted"] else [goal_sheet(record)]
    return [*(sheet for sheet in made if sheet.rows), *goals, stage_sheet(record)]


def _timed(parts: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the numbers of each part of a kind that has times, by its shape."""
    return {
        part.removeprefix(kind): numbers
        for part, numbers in parts.items()
        if part.startswith(kind) and "times_ms" in numbers
    }


def exact_sheet(parts: dict[str, Any]) -> Sheet:
    searches = [
        *PRECISIONS,
        *([FLASH] if any(FLASH in each["wrong_share"] for each in parts.values()) else []),
    ]
    body = [
        [
            part,
            _percent(numbers.get("left")),
            *(_percent(numbers["wrong_share"].get(name)) for name in searches),
        ]
        for part, numbers in parts.items()
    ]
    wrong = (f"wrong, {name}" for name in searches)
    return Sheet("Percent of rows", ["data", "left", *wrong], body)


def sums_sheet(parts: dict[str, Any]) -> Sheet:
    """Return a table of the errors of sums, with the constant of (10) that each would need."""
    body = [
        [part, f"{numbers['share_of_bound']:.3g}", f"{numbers['needed']:.3g}", f"{numbers['constant']:.3g}"]
        for part, numbers in parts.items()
    ]
    return Sheet("Errors of sums", ["data", "share of the bound", "needed", "constant"], body)


def unit_sheet(parts: dict[str, Any]) -> Sheet:
    """Return a table of what matrix units do to small terms, by the kind of operands."""
    body = [
        [
            UNITS[part],
            *(_text(numbers["kept"][where]) for where in SINGLE),
            *(_text(numbers[name]) for name in ("cut", "alone", "step", "end")),
        ]
        for part, numbers in parts.items()
    ]
    kept = (f"bits kept, accumulator {where}" for where in SINGLE)
    headings = ["operands", *kept, "further bits", "each product alone", "products a step", "the sum's bits"]
    return Sheet("Sums in a matrix unit: bits kept below the last one of the largest term", headings, body)


def host_sheet(parts: dict[str, Any]) -> Sheet:
    columns = ("kernels_launched", "device_us", "eager_us", "graph_us")
    body = [
        [
            part.removeprefix(HOST),
            *(NOTHING if numbers.get(name) is None else f"{numbers[name]:.0f}" for name in columns),
            "yes" if numbers.get("waits") else "no",
        ]
        for part, numbers in parts.items()
    ]
    return Sheet("One call, µs", ["call", "kernels", "device", "eager", "graph", "waits"], body)


def kernel_sheet(parts: dict[str, Any]) -> Sheet:
    """Return a table of the slowest kernels of each call, in microseconds on the device, with their number."""
    calls = [(part.removeprefix(HOST), numbers) for part, numbers in parts.items() if part.startswith(HOST)]
    body = [_kernel_cells(name, numbers["launched"]) for name, numbers in calls if numbers.get("launched")]
    for part, numbers in parts.items():
        if part.startswith(KERNELS):
            shape = part.removeprefix(KERNELS)
            body += [
                _kernel_cells(f"{shape} {name}", launched)
                for name, launched in numbers.get("launched", {}).items()
                if launched
            ]
    slowest = (f"{i}." for i in range(1, SLOWEST + 1))
    return Sheet("Kernels of one call, µs", ["call", "launches", "all", *slowest], body)


def _kernel_cells(call: str, launched: Launched) -> list[str]:
    kernels = list(by_short_name(launched).items())[:SLOWEST]
    shown = [
        f"{name} {numbers['us']:.3g}" + (f" ({numbers['launches']:.0f})" if numbers["launches"] > 1 else "")
        for name, numbers in kernels
    ]
    launches = sum(int(numbers["launches"]) for numbers in launched.values())
    return [call, str(launches), f"{total_us(launched):.3g}", *shown, *[NOTHING] * (SLOWEST - len(shown))]


def step_sheet(speed: dict[str, Any]) -> Sheet:
    """Return a table of training steps in milliseconds, ours and the peer's, launched by the host and as graphs,
    and how many times as fast ours is."""
    body = [
        [
            step.shape,
            step.pair.ours.name,
            *(_number(each) for each in (step.ours, step.ours_graph, step.peer, step.peer_graph)),
            *(_times_as(step.ratio(graph)) for graph in (False, True)),
        ]
        for step in steps(speed)
    ]
    headings = ["N, K, D", "step", "ours", "ours, graph", "peer", "peer, graph", "faster", "faster, graph"]
    return Sheet("Training steps, ms", headings, body)


def other_sheet(speed: dict[str, Any]) -> Sheet:
    """Return a table of what is built on the search, in milliseconds, beside the same with cdist."""
    body = []
    for kind, rival in ((K_NEAREST, CDIST_TOPK), (FIT, CDIST)):
        for shape, numbers in of_kind(speed, kind):
            times = medians(numbers)
            ours, theirs = times.get(OURS), times.get(rival)
            ratio = theirs / ours if ours and theirs else None
            cells = (ours, times.get(named_graph(OURS)), theirs)
            body.append([shape, kind.strip(), *map(_number, cells), _times_as(ratio)])
    return Sheet("Built on the search, ms", ["N, K, D", "", "ours", "ours, graph", "by cdist", "faster"], body)


def tune_sheet(speed: dict[str, Any]) -> Sheet:
    """Return a table of the ways to search clustered data, the fastest first."""
    body = [
        [shape, way, _number(milliseconds), str(numbers["different"][way])]
        for shape, numbers in of_kind(speed, TUNE)
        for way, milliseconds in sorted(numbers.get("ways_ms", {}).items(), key=lambda item: item[1])
    ]
    return Sheet("Ways to search clustered data", ["N, K, D", "way", "ms", "rows that differ"], body)


def goal_sheet(record: dict[str, Any]) -> Sheet:
    """Return a table of the goals: the verdict, the worst number, where, and how many places have none."""
    body = [
        [
            each.goal.name,
            each.goal.required,
            each.verdict,
            _number(each.number),
            each.where,
            str(len(each.measured.missing) or NOTHING),
            str(len(each.measured.excused) or NOTHING),
        ]
        for each in verdicts(record)
    ]
    return Sheet("Goals", ["", "goal", "", "worst", "where", "not measured", "cannot run"], body)


def tile_sheet(parts: dict[str, Any]) -> Sheet:
    """Return a table of the fastest tile sizes of the search's loop at each shape, beside those that it has."""
    body = [
        [part.removeprefix(TILES), name + " *" * (name == numbers["chosen"]), f"{median:.3g}"]
        for part, numbers in parts.items()
        for place, (name, median) in enumerate(numbers.get("tiles_ms", {}).items())
        if place < FASTEST_TILES or name == numbers["chosen"]
    ]
    return Sheet("Tiles of the search (* as it is), ms", ["N, K, D", "tiles", "ms"], body)


def stage_sheet(record: dict[str, Any]) -> Sheet:
    body = [
        [
            name,
            str(len(stage["parts"])),
            str(len(failures(stage))),
            str(sum(numbers.get("cases", 0) for numbers in stage["parts"].values()) or NOTHING),
            str(sum(numbers.get("failed", 0) for numbers in stage["parts"].values()) or NOTHING),
            f"{compile_seconds(stage):.0f}",
            f"{stage['seconds']:.0f}",
            f"{stage['limit']:.0f}",
        ]
        for name, stage in record["stages"].items()
    ]
    headings = ["stage", "parts", "errors", "tests", "tests failed", "compile s", "s", "limit s"]
    return Sheet("Stages", headings, body)


def compile_seconds(stage: dict[str, Any]) -> float:
    """Return the seconds of compiling kernels, over all processes."""
    return sum(
        kernel["seconds"] for numbers in stage["parts"].values() for kernel in numbers.get("kernels", {}).values()
    )


def search_sheet(times: dict[str, dict[str, Any]]) -> Sheet:
    """Return a table of searches in milliseconds; this library's as graphs where there are any, and their share of
    the floor.
    """
    rivals = [(ADDMM,), (f"{ADDMM}, compiled",), (CDIST,)]
    rivals += [
        (rival.name, as_graph(rival).name)
        for rival in FLASHES
        if any(rival.name in numbers["times_ms"] for numbers in times.values())
    ]
    names = [search.rival.name for search in SEARCHES]
    body = [
        [
            shape,
            *(_cell(numbers, search.rival.name, search.graph.name) for search in SEARCHES),
            *(_cell(numbers, *names) for names in rivals),
        ]
        for shape, numbers in times.items()
    ]
    return Sheet("Searches, ms (share of the floor)", ["N, K, D", *names, *(rival[0] for rival in rivals)], body)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _times_as(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.3g}×"


def _text(value: object) -> str:
    return (
        NOTHING if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    )


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.3g}"


def _cell(numbers: dict[str, Any], *names: str) -> str:
    """Return the time of the last of these names that was measured."""
    measured = [name for name in names if name in numbers["times_ms"]]
    if not measured:
        return NOTHING
    share = numbers.get("share_of_floor", {}).get(measured[-1])
    return f"{numbers['times_ms'][measured[-1]]['median']:.3g}" + (f" ({share:.0%})" if share else "")
