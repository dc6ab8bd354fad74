"""`python -m benchmarks first-call`: the table of a measurement."""

from benchmarks.first_call import STATES, sheet


def test_the_table_has_a_row_for_each_state() -> None:
    states = {state: {"wall_seconds": 2.0 * place, "cpu_seconds": place} for place, state in enumerate(STATES)}
    rows = sheet({"repetitions": 3, "states": states}).rows
    assert [row[0] for row in rows] == list(STATES)
    assert all(float(row[2]) == 2 * float(row[1]) for row in rows)
