"""Each row of docs/faults.md names tests that exist, and whether they are slow."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\|([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|$", re.M)
TEST = re.compile(r"((?:@.*\n)*)def (test_\w+)")


def rows() -> list[tuple[str, str, str]]:
    """Fault, tests and where they run, of each row."""
    found = ROW.findall((ROOT / "docs/faults.md").read_text())
    return [(fault.strip(), tests, runs.strip()) for fault, _, tests, runs in found if "`" in tests]


def named(tests: str) -> list[tuple[Path, str | None]]:
    """Files and words of names in them; a file of no folder lies beside the one before it."""
    found: list[tuple[Path, str | None]] = []
    file = Path()
    for word in re.findall(r"`([^`]+)`", tests):
        if word.endswith(".py"):
            file = Path(word) if "/" in word else file.parent / word
            found.append((file, None))
        else:
            found.append((file, word))
    return found


def test_the_list_is_whole() -> None:
    """What must not be lost from it, by a word of each row."""
    faults = "\n".join(fault for fault, _, _ in rows())
    for word in (
        "worker is killed",
        "node is killed",
        "goes silent",
        "driver (the stage) is killed",
        "MLflow is down",
        "PostgreSQL",
        "S3 refuses",
        "spoilt",
        "disk of the cells is full",
        "two flows",
        "cancelled in the browser",
        "truncated",
        "flipped",
        "50 random points",
    ):
        assert word in faults


def test_every_test_that_a_row_names_exists_and_runs_where_it_says() -> None:
    for fault, tests, runs in rows():
        for file, word in named(tests):
            text = (ROOT / file).read_text()
            known = [(marks, name) for marks, name in TEST.findall(text) if word is None or word in name]
            assert known, f"{fault}: {file} has no test of {word}"
            slow = [
                "pytest.mark.slow" in marks or "pytestmark = pytest.mark.slow" in text for marks, _ in known
            ]
            assert any(slow) if runs.startswith("slow") else not all(slow), f"{fault}: {file} {word}"
