"""Stage `report`."""

from typing import Annotated

from pydantic import Field

from tasks.engine.params import Block


class Report(Block):
    """`faces`: people in the picture wall; `images_a_face`: reconstructions of each."""

    faces: Annotated[int, Field(gt=0)]
    images_a_face: Annotated[int, Field(gt=0)]
