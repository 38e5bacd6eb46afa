"""Every block of `params.yaml`, typed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mipriv.data.sources import Record, natural
from mipriv.data.splits import PRIVATE, Indices
from mipriv.plugin import one_of
from tasks import (
    attributes,
    book,
    design,
    evaluate,
    evaluate_attributes,
    evaluate_membership,
    evaluate_split,
    features,
    finetune,
    fisher,
    invert,
    invert_split,
    judge,
    membership,
    pretrain,
    prior,
    prototypes,
    reconstruct,
    report_attributes,
    report_membership,
    report_split,
    shadow_victims,
    shadows,
    split,
    table,
)
from tasks import prepare as preparation
from tasks import report as reporting
from tasks.audits.rows import Audit
from tasks.engine import params

Shape = tuple[int, int, int]
M = TypeVar("M")


class Parameters:
    """The typed blocks of `params.yaml`, checked one by one and then against each other."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        blocks = {
            "prepare": preparation.Prepare,
            "pretrain": pretrain.Pretrain,
            "finetune": finetune.Finetune,
            "prior": prior.Priors,
            "judge": judge.Judges,
            "invert": invert.Invert,
            "invert_split": invert_split.InvertSplit,
            "fisher": fisher.Analysis,
            "evaluate": evaluate.Evaluate,
            "split": split.Splits,
            "reconstruct": reconstruct.Reconstruct,
            "evaluate_split": evaluate_split.EvaluateSplit,
            "prototypes": prototypes.Prototypes,
            "design": design.Design,
            "features": features.Features,
            "shadows": shadows.Shadows,
            "membership": membership.Attacks,
            "shadow_victims": shadow_victims.ShadowVictims,
            "evaluate_membership": evaluate_membership.EvaluateMembership,
            "audit": Audit,
            "attributes": attributes.Attributes,
            "evaluate_attributes": evaluate_attributes.EvaluateAttributes,
            "table": table.Joined,
            "book": book.Book,
            "report": reporting.Report,
            "report_split": report_split.ReportSplit,
            "report_membership": report_membership.ReportMembership,
            "report_attributes": report_attributes.ReportAttributes,
            "cost": params.Cost,
        }
        for name in values:
            one_of(name, blocks, f"{params.FILE}: block")
        for name in blocks:
            one_of(name, values, f"{params.FILE}: block")
        self.prepare = params.validate(preparation.Prepare, values["prepare"], "prepare")
        self.pretrain = params.validate(pretrain.Pretrain, values["pretrain"], "pretrain")
        self.finetune = params.validate(finetune.Finetune, values["finetune"], "finetune")
        self.prior = params.validate(prior.Priors, values["prior"], "prior")
        self.judge = params.validate(judge.Judges, values["judge"], "judge")
        self.invert = params.validate(invert.Invert, values["invert"], "invert")
        self.invert_split = params.validate(invert_split.InvertSplit, values["invert_split"], "invert_split")
        self.fisher = params.validate(fisher.Analysis, values["fisher"], "fisher")
        self.evaluate = params.validate(evaluate.Evaluate, values["evaluate"], "evaluate")
        self.split = params.validate(split.Splits, values["split"], "split")
        self.reconstruct = params.validate(reconstruct.Reconstruct, values["reconstruct"], "reconstruct")
        self.evaluate_split = params.validate(
            evaluate_split.EvaluateSplit, values["evaluate_split"], "evaluate_split"
        )
        self.prototypes = params.validate(prototypes.Prototypes, values["prototypes"], "prototypes")
        self.design = params.validate(design.Design, values["design"], "design")
        self.features = params.validate(features.Features, values["features"], "features")
        self.shadows = params.validate(shadows.Shadows, values["shadows"], "shadows")
        self.membership = params.validate(membership.Attacks, values["membership"], "membership")
        self.shadow_victims = params.validate(
            shadow_victims.ShadowVictims, values["shadow_victims"], "shadow_victims"
        )
        self.evaluate_membership = params.validate(
            evaluate_membership.EvaluateMembership, values["evaluate_membership"], "evaluate_membership"
        )
        self.audit = params.validate(Audit, values["audit"], "audit")
        self.attributes = params.validate(attributes.Attributes, values["attributes"], "attributes")
        self.evaluate_attributes = params.validate(
            evaluate_attributes.EvaluateAttributes, values["evaluate_attributes"], "evaluate_attributes"
        )
        self.table = params.validate(table.Joined, values["table"], "table")
        self.book = params.validate(book.Book, values["book"], "book")
        self.report = params.validate(reporting.Report, values["report"], "report")
        self.report_split = params.validate(report_split.ReportSplit, values["report_split"], "report_split")
        self.report_membership = params.validate(
            report_membership.ReportMembership, values["report_membership"], "report_membership"
        )
        self.report_attributes = params.validate(
            report_attributes.ReportAttributes, values["report_attributes"], "report_attributes"
        )
        self.cost = params.validate(params.Cost, values["cost"], "cost")
        self._made: dict[tuple[object, ...], Any] = {}
        self._sources: dict[str, tuple[list[Record], dict[str, Indices]]] = {}

    def once(self, key: tuple[object, ...], make: Callable[[], M]) -> M:
        """What was made under a key, made when it is first asked for; not to be changed."""
        if key not in self._made:
            self._made[key] = make()
        made: M = self._made[key]
        return made

    def image_shape(self, row: str) -> Shape:
        """(C, H, W) of the images of a row of `prepare`."""
        return self.prepare.rows[row].image_shape

    def people(self, row: str) -> int:
        """Private people of a row of `prepare`, whose source is asked once.

        Raises:
            InputError: a source that is not there, or has fewer images or people than are asked for.
        """
        return len(set(self.labels(row)))

    def labels(self, row: str) -> list[str]:
        """Of the private training images of a row of `prepare`; see `people`."""
        return [record.label for record in self._trained_on(row)]

    def names(self, row: str) -> list[str]:
        """Of the private people of a row of `prepare`, in the order of their labels; see `people`."""
        records, splits = self._prepared(row)
        return sorted({records[i].label for split in PRIVATE for i in splits[split]}, key=natural)

    def attribute_names(self, row: str) -> list[str]:
        """Names of attributes that images of a row of `prepare` have; see `people`."""
        return list(self._trained_on(row)[0].attributes)

    def classes(self, row: str, task: str | None) -> int:
        """K of a task, an attribute or None, who is on an image; see `people`."""
        if task is None:
            return self.people(row)
        return max(2, 1 + max(int(record.attributes[task]) for record in self._trained_on(row)))

    def _trained_on(self, row: str) -> list[Record]:
        """Private training images."""
        records, splits = self._prepared(row)
        return [records[i] for i in splits["private/train"]]

    def _prepared(self, row: str) -> tuple[list[Record], dict[str, Indices]]:
        """All records, and the splits."""
        if row not in self._sources:
            wanted = self.prepare.of(row)
            records = wanted.records(Path.cwd())
            self._sources[row] = records, wanted.splits(records)
        return self._sources[row]
