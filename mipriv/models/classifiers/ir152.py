"""IR-152, the deepest classifier of the 64x64 inversion studies (Zhang et al., CVPR 2020)."""

from dataclasses import dataclass

from mipriv.models.classifiers import Classifier, _ir


@dataclass(frozen=True)
class IR152:
    """An improved residual network of 50 blocks; see `_ir.build` for its layers and names.

    With 64x64 images and 1,000 classes: 62.60M parameters; 17.83M behind the cut `trunk.blocks.46`.

    Attributes:
        depths: blocks a stage.
        width: channels of the first stage; doubled by every other one.
        embedding: dimensions the head reads.
        dropout: rate before the embedding.
    """

    depths: tuple[int, ...] = (3, 8, 36, 3)
    width: int = 64
    embedding: int = 512
    dropout: float = 0.5

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: images too small for the stages.
        """
        return _ir.build(self.depths, self.width, self.embedding, self.dropout, num_classes, image_shape)
