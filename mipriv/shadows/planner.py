"""In which arithmetic heads are trained, told from sizes alone; results are the same but for rounding."""

from dataclasses import dataclass
from typing import Literal

from mipriv.shadows.recipes import Converged, Recipe

# Records times classes. One product over all records runs at two to three times the rate of products with
# a few columns each, and does twice the work: up to here it is ahead. With more classes a head's own product
# has columns enough.
MASKED = 40_000
# From here a head alone keeps a core busy for longer than starting its process takes.
GATHERED = 1_000_000
# Logits of a chunk, in numbers: what is computed on between two products should stay in a cache, but inverse
# blocks of the Hessian, too large for one, are read once for all heads of a chunk.
LOGITS = 1_600_000
BLOCKS = 250_000_000  # numbers in the inverses of the Hessian's blocks, 1 GB
# Records times classes. Up to here float64 takes no more time, and rounding of an objective in float32 ends
# the search of heads that are nearly separable before their gradient is small.
EXACT = 2_000


@dataclass(frozen=True)
class Plan:
    """How to go about it.

    Attributes:
        how: `masked`: one product for all heads of a chunk over all records; `gathered`: a product a head,
            over its own records; `workers`: gathered, and the caller gives each of its single-threaded
            workers a batch of models (`fit` itself computes these as gathered).
        qr: train in the N dimensions that N records span: exact where turning the features changes nothing.
        chunk: heads that are computed on together.
        why: a sentence.
    """

    how: Literal["masked", "gathered", "workers"]
    qr: bool
    chunk: int
    why: str


def plan(records: int, dims: int, classes: int, recipe: Recipe) -> Plan:
    """The plan for heads over `records` N, each with about half of them, of `dims` D features.

    Args:
        records: N.
        dims: D.
        classes: C.
        recipe: of which counts whether it turns with the features, and its batches.
    """
    qr = records < dims and recipe.turns
    size = records * classes
    chunk = max(1, min(256, LOGITS // size))
    room = f"N x C is {records} x {classes} = {size}"
    batch = None if isinstance(recipe, Converged) else recipe.batch_size
    how: Literal["masked", "gathered", "workers"]
    if size > GATHERED:
        how, why = "workers", f"{room}, above {GATHERED}: one head keeps a core busy, so heads go to workers"
    elif batch is not None and batch < records // 2:
        how, why = "gathered", f"batches of {batch} differ between heads: each computes on its own rows"
    elif size > MASKED:
        how, why = "gathered", f"{room}, above {MASKED}: each head's own rows make a product large enough"
    else:
        how, why = "masked", f"{room}, up to {MASKED}: one product for all heads, half of its rows weightless"
    if qr:
        why += f"; in {records} dimensions rather than {dims}, which is exact for this recipe"
    return Plan(how, qr, chunk, why)


def curved(models: int, records: int, dims: int, classes: int) -> bool:
    """Whether the curvature at the common minimum is worth its making.

    It costs C (N D^2 + D^3) products and saves each model some twenty steps or more, of 2 N D C each.
    """
    cheaper = (records + dims) * dims < 40 * models * records
    return cheaper and classes * dims**2 <= BLOCKS


def exact(records: int, classes: int) -> bool:
    """Whether heads over so many records are better trained in float64."""
    return records * classes <= EXACT
