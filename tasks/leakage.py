"""The leakage table: one figure a line, with its interval, floor and n; how it is written, read and spelt."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.tables import write_csv

FILE = "leakage.csv"
UNDEFENDED = "none"  # the defence that is none
OWN_START = "its own start"  # what an attack gains over is where it began
NATURAL, TOP1, TOP5, KNN = "natural accuracy", "accuracy@1", "accuracy@5", "knn"
ROBUST = "accuracy under perturbation"
AGREEMENT = "agreement on public images"
REFUSED = "accepted but refused by the embedding"
KID, FRECHET = "kid", "frechet"
MSE, PSNR, SSIM = "mse", "psnr", "ssim"
RESIDUAL, PASSES = "relative feature residual", "passes an image"
IDENTITY = "named by the embedding"
INFORMATION, FACTOR = "information, nats", "information factor"
TPR, AUC = "tpr at fpr {:g}", "auc"
QUERIES, STUDY = "queries an identity", "queries of the study"
BALANCED, AUC, RECOVERED = "balanced accuracy", "auc", "recovered share"
ATTRIBUTE, ATTRIBUTE_FLOOR, CHOSEN = "attribute", "attribute floor", "chosen on validation"
SIMULATED = "simulated"  # a kind that no table has: attackers inside a training are no auditors
# The file has six decimals: an end of an interval this near to zero is zero.
ZERO = 1e-6


@dataclass(frozen=True)
class Line:
    """One figure of one subject.

    Attributes:
        subject: a row of `invert`, of `finetune`, of `prior` or of `judge`, or the name of a floor.
        kind: `victim`, `attack`, `floor`, `ceiling`, `difference`, `judge`, `embedding`, `cost`, `fidelity`
            or `matched`; of split victims also `reconstruction`, its floor and ceiling,
            `client`, `gain`, `bound` and `certificate`; of audited ones `attribute`, its floor, and
            `audited victim`.
        figure: what was measured.
        judge: who judged it; empty where nobody did.
        against: of a difference, what was subtracted; of a matched figure, at which natural accuracy; of an
            attribute, which.

    Raises:
        InputError: a value that is no `Figure`, such as a simulated attacker's score: it is no leakage.
    """

    subject: str
    kind: str
    figure: str
    judge: str
    against: str
    value: Figure

    def __post_init__(self) -> None:
        if not isinstance(self.value, Figure) or self.kind == SIMULATED:
            said = f"leakage table: {self.subject}: {type(self.value).__name__} of kind {self.kind!r}"
            raise InputError(f"{said}; allowed: figures of attackers that no defence was trained against")

    def flat(self) -> dict[str, Any]:
        """One flat row for a table."""
        row = asdict(self)
        return {**{key: row[key] for key in row if key != "value"}, **row["value"]}


@dataclass(frozen=True)
class Table:
    """Lines as a reader asks for them."""

    lines: tuple[Line, ...]

    @property
    def judges(self) -> list[str]:
        """Names of the judges, the first one first."""
        return self.subjects("judge")

    @property
    def embedding(self) -> str | None:
        """Name of the embedding that judges without labels, where there is one."""
        return next(iter(self.subjects("embedding")), None)

    def subjects(self, kind: str) -> list[str]:
        """Subjects of a kind, each once, in the order of the table."""
        return list(dict.fromkeys(line.subject for line in self.lines if line.kind == kind))

    def value(self, subject: str, kind: str, figure: str, judge: str = "", against: str = "") -> Figure:
        """One figure.

        Raises:
            InputError: the table has no such line.
        """
        wanted = (subject, kind, figure, judge, against)
        for line in self.lines:
            if (line.subject, line.kind, line.figure, line.judge, line.against) == wanted:
                return line.value
        said = ", ".join(part for part in wanted if part)
        raise InputError(f"leakage table: no line {said!r}; evaluate again")

    def twin(self, subject: str) -> str | None:
        """The same attack on the undefended victim, where there is one to compare with."""
        differences = (line for line in self.lines if (line.subject, line.kind) == (subject, "difference"))
        return next((line.against for line in differences if line.against != OWN_START), None)


def read(path: Path) -> Table:
    """The table that `Line.flat` was written from.

    Raises:
        InputError: no such file, other columns, or a cell that is no number where one belongs.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        return Table(tuple(_line(row) for row in rows))
    except (OSError, ValueError, KeyError, TypeError, csv.Error, InputError) as error:
        raise InputError(f"{path}: no leakage table ({type(error).__name__}: {error})") from error


def write(path: Path, lines: Sequence[Line]) -> None:
    """The table that `read` reads; of a scale without rows its columns alone."""
    if lines:
        write_csv(path, [line.flat() for line in lines])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = Line("", "", "", "", "", Figure(0.0, 0.0, 0.0, 0, 0, "")).flat()
        path.write_text(",".join(columns) + "\n", encoding="utf-8")


def _line(row: Mapping[str, str]) -> Line:
    words = {field.name: row[field.name] for field in fields(Line) if field.name != "value"}
    numbers = {name: float(row[name]) for name in ("point", "low", "high")}
    value = Figure(**numbers, n=int(row["n"]), seeds=int(row["seeds"]), method=row["method"])
    return Line(**words, value=value)


def sign(difference: Figure) -> int:
    """-1 or 1 where the interval of a difference lies below or above zero, 0 where it holds zero."""
    return (difference.low > ZERO) - (difference.high < -ZERO)


def percent(figure: Figure) -> str:
    """A share in percent with its interval: `52.0 [39.3, 64.7]`."""
    return _spelt(figure, 100, "")


def points(figure: Figure) -> str:
    """A difference of shares in percentage points: `-21.0 [-35.0, -6.3]`."""
    return _spelt(figure, 100, "+")


def plain(figure: Figure) -> str:
    """A figure as it is: `267.6 [242.9, 295.8]`, or `0.312 [0.287, 0.335]` where all of it is below 10."""
    return _spelt(figure, 1, "", 1 if figure.high >= 10 else 3)


def _spelt(figure: Figure, scale: float, plus: str, digits: int = 1) -> str:
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    ends = (figure.point, figure.low, figure.high)
    point, low, high = (f"{round(scale * end, digits) + 0.0:{plus}.{digits}f}" for end in ends)
    return f"{point} [{low}, {high}]"


def metrics(lines: Iterable[Line]) -> Mapping[str, Any]:
    """Points alone, nested by subject and judge, as `dvc metrics` shows them."""
    nested: dict[str, Any] = {}
    for line in lines:
        if line.kind in ("victim", "attack", "judge"):
            place = nested.setdefault(line.subject, {})
            if line.judge:
                place = place.setdefault(line.judge, {})
            place[line.figure] = round(line.value.point, 4)
    return nested
