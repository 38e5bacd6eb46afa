"""FaceNet64, the IR-50 of the 64x64 inversion studies (Zhang et al., CVPR 2020), which named it so."""

from dataclasses import dataclass

from mipriv.models.classifiers import Classifier, _ir


@dataclass(frozen=True)
class FaceNet64:
    """An improved residual network of 24 blocks; see `_ir.build` for its layers and names.

    With 64x64 images and 1,000 classes: 35.44M parameters; 34.39M behind the cut `trunk.blocks.5`.

    Attributes:
        depths: blocks a stage.
        width: channels of the first stage; doubled by every other one.
        embedding: dimensions the head reads.
        dropout: rate before the embedding.
    """

    depths: tuple[int, ...] = (3, 4, 14, 3)
    width: int = 64
    embedding: int = 512
    dropout: float = 0.5

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: images too small for the stages.
        """
        return _ir.build(self.depths, self.width, self.embedding, self.dropout, num_classes, image_shape)
