"""Published claims, a section a study, beside what the run of this working tree found, where there is one."""

from pathlib import Path

from made_project import loaded

from tasks import information, leakage
from tasks.page import claims
from tasks.page.verdicts import NOT_RUN, Verdict, verdicts

NO_RUN = "No run in this working tree; `make run` makes one."


def published(root: Path) -> str:
    """Every claim of `claims/`, in the order of the files."""
    book = claims.read(root / "claims")
    table = root / loaded(root / "dvc.yaml")["artifacts"]["leakage"]["path"]
    found = (
        {one.claim.id: one for one in verdicts(book, leakage.read(table), thirds(root))}
        if table.exists()
        else {}
    )
    parts = (
        []
        if found
        else [f"!!! note\n    {NO_RUN} Until then no verdict is shown, but for claims that cannot be run."]
    )
    for study in book.studies:
        parts += [
            f"## {study.study}",
            study.paper + ".",
            *(section(claim, found.get(claim.id)) for claim in study.claims),
        ]
    return "\n\n".join(parts)


def thirds(root: Path) -> list[information.Third]:
    """Fisher information of every victim that was analysed, from the folder that `dvc.yaml` names."""
    folder = root / loaded(root / "dvc.yaml")["stages"]["fisher"]["do"]["outs"][0].replace("/${key}", "")
    tables = sorted(folder.glob(f"*/{information.THIRDS}"))
    return [third for path in tables for third in information.read(path)]


def section(claim: claims.Claim, verdict: Verdict | None) -> str:
    """One claim."""
    figures = [f"{one.setting}, {one.figure}: {one.spelt}" for one in claim.published] or ["no figure"]
    lines = [
        f"- Published: {'; '.join(figures)}.",
        f"- Read in: {claim.source} ({claim.reliability}).",
        f"- Tested by: {tested(claim)}.",
    ]
    if said := here(claim, verdict):
        lines.append(f"- Here: {said}")
    return "\n".join([f"**{claim.says}**", f"{{: #{claim.id} }}", "", *lines])


def tested(claim: claims.Claim) -> str:
    """The test, in the words of its file."""
    if claim.test is None:
        return "nothing"
    return ", ".join(f"{name} `{value}`" for name, value in claim.test.model_dump().items())


def here(claim: claims.Claim, verdict: Verdict | None) -> str:
    """The verdict, and what it rests on."""
    if claim.not_run:
        return f"**{NOT_RUN}**: {claim.not_run}"
    if verdict is None:
        return ""
    if verdict.found is None:
        return f"**{verdict.outcome}**: {verdict.reason}"
    seen = [
        f"{' and '.join(one.figures)}"
        + (f", difference {one.difference}" if one.difference else "")
        + (f" by `{one.judge}`" if one.judge else "")
        for one in verdict.found.seen
    ]
    rows = " and ".join(f"`{row}` ({of})" for row, of in verdict.found.rows)
    said = f"**{verdict.outcome}**: {verdict.found.figure} of {rows}: {'; '.join(seen)}."
    return " ".join([said, *verdict.found.notes])
