"""Networks that swap a part of our aligned face: what their authors cut out lies on whole pixels of a larger one."""

from dataclasses import dataclass

from facedancer.core.lazy import LazyModule

layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")


@dataclass(frozen=True)
class InnerCrop:
    """Where a square of an aligned face lies.

    Attributes:
        size: side of the square in pixels.
        image_size: side of the aligned face in pixels.
        left, top: pixels of the face to the left of the square, and above it.
        shrink_factor: of the aligned face's landmark template (see `core.alignment`).
    """

    size: int
    image_size: int
    left: int
    top: int
    shrink_factor: float

    def cut(self, faces):
        """Returns the square of a tensor of faces (n, image_size, image_size, C), as a layer: (n, size, size, C)."""
        right, bottom = (self.image_size - start - self.size for start in (self.left, self.top))
        return layers.Cropping2D(((self.top, bottom), (self.left, right)), name="crop")(faces)

    def paste(self, faces, square, name):
        """Returns the faces with the square replaced, as a layer of that name, float32."""
        return own.PasteInto(self.top, self.left, dtype="float32", name=name)([faces, square])
