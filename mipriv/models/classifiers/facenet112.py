"""FaceNet112, the IR-50 that judges in the 64x64 inversion studies (Zhang et al., CVPR 2020)."""

from dataclasses import dataclass

from mipriv.models.classifiers import Classifier, _ir


@dataclass(frozen=True)
class FaceNet112:
    """An improved residual network of 24 blocks on images resized to 112x112; see `_ir.build`.

    The studies pass reconstructions through 8-bit files on the way from 64 to 112; here they are resized
    bilinearly as they are, so that the judge is differentiable and rounds nothing.

    Attributes:
        depths: blocks a stage.
        width: channels of the first stage; doubled by every other one.
        embedding: dimensions the head reads.
        dropout: rate before the embedding.
        input_size: side the images are resized to.
    """

    depths: tuple[int, ...] = (3, 4, 14, 3)
    width: int = 64
    embedding: int = 512
    dropout: float = 0.5
    input_size: int = 112

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: an input size too small for the stages.
        """
        return _ir.build(
            self.depths,
            self.width,
            self.embedding,
            self.dropout,
            num_classes,
            image_shape,
            self.input_size,
        )
