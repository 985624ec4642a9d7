"""For networks that swap only a part of our aligned face: their authors' crop, at whole pixels of a larger face."""

from dataclasses import dataclass

from facedancer.core.lazy import LazyModule

layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")


@dataclass(frozen=True)
class InnerCrop:
    """A square within an aligned face.

    Attributes:
        size: side of the square in pixels.
        image_size: side of the aligned face in pixels.
        left, top: pixels of the face to the left of the square and above it.
        shrink_factor: shrink factor of the aligned face's landmark template (see `core.alignment`).
        fade: width in pixels of the square's border, over which it passes into the face around it.
    """

    size: int
    image_size: int
    left: int
    top: int
    shrink_factor: float
    fade: int = 0

    def cut(self, faces):
        """Cuts the square out of faces: a layer (n, image_size, image_size, C) -> (n, size, size, C)."""
        right, bottom = (self.image_size - start - self.size for start in (self.left, self.top))
        return layers.Cropping2D(((self.top, bottom), (self.left, right)), name="crop")(faces)

    def paste(self, faces, square, name):
        """Puts a square (n, size, size, C) back into faces (n, image_size, image_size, C), by a float32 layer `name`.

        Returns:
            The faces, (n, image_size, image_size, C) float32.
        """
        return own.PasteInto(self.top, self.left, self.fade, dtype="float32", name=name)([faces, square])
