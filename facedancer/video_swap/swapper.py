"""The face swapper: frames in, frames with swapped faces out.

This is the only place that knows the steps between a frame and the network: which faces to swap, how they are aligned,
the network's value range, and how the results are pasted back.
"""

import contextlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from facedancer.core.alignment import (
    align_matrix,
    invert_affine,
    landmark_template,
    scale_of,
    transform_points,
    warp_to_aligned,
)
from facedancer.core.console import UserError
from facedancer.core.images import to_signed
from facedancer.core.weights import find_weights
from facedancer.retinaface import largest_face
from facedancer.video_swap.crops import Crop
from facedancer.video_swap.engines import DecoderEngine, load_engine
from facedancer.video_swap.pasting import FacePaster, PasteOptions
from facedancer.video_swap.sources import source_of


@dataclass(frozen=True)
class SwappedFrame:
    """A frame and where it was changed.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        regions: `(x1, y1, x2, y2)` for each swapped face, in whole pixels, end excluded; outside them the
            frame is unchanged.
        is_bad: whether a face was left unchanged because its landmarks coincide or the network's output for it is not
            finite.
    """

    image: np.ndarray
    regions: list
    is_bad: bool = False

    def moved(self, x, y):
        """Returns a copy with its regions shifted by `x` pixels to the right and `y` down."""
        regions = [(x1 + x, y1 + y, x2 + x, y2 + y) for x1, y1, x2, y2 in self.regions]
        return replace(self, regions=regions)


@dataclass(frozen=True, eq=False)
class PlacedFace:
    """A face to swap.

    Attributes:
        landmarks: (5, 2) in the frame's pixels.
        source: what the network takes as source: embedding (dim,) float32, followed by the coefficients of the
            source's face if it needs them; or the number of a decoder. See `sources.Source.given`.
        weight: how much of the swapped face is shown, [0, 1].
    """

    landmarks: np.ndarray
    source: np.ndarray | int
    weight: float = 1.0

    def moved(self, x, y):
        """Returns a copy shifted by `x` pixels to the right and `y` down."""
        return replace(self, landmarks=self.landmarks + np.float32([x, y]))


class FaceSwapper:
    """Swaps every face of a frame with the source's identity.

    Args:
        model: engine from `engines.load_engine`, or a Keras model with the inputs `target` (n, S, S, 3) in [-1, 1] and
            `source_embedding` (n, dim), with `shapes` also `source_coefficients` and `target_coefficients` (n, c), and
            the swapped faces in [-1, 1] as output; for a swapper with decoders `engines.DecoderEngine`.
        detector: `FaceDetector`, or an object whose `detect` does the same.
        encoder: `IdentityEncoder`, or a callable object with a `dim`, like it.
        image_size: side S of the aligned face in pixels.
        shrink_factor: shrink factor of the landmark template that the model was trained on.
        batch_size: maximum number of faces per batch.
        pixel_boost: integer factor on the network's resolution, by interleaved tiles.
        paste: `PasteOptions`, how a swapped face goes back into its frame; None for the defaults.
        decoders: names of the people that the model can swap in without a source, in order.
        settle: `turned_faces.settle`, which gives turned faces their landmarks; None leaves them.
        shapes: `face_shapes.FaceShapes` for faces of `image_size`, if the model needs coefficients; else None.
    """

    def __init__(
        self, model, detector, encoder, image_size, shrink_factor=1.0, batch_size=8, pixel_boost=1,
        paste=None, decoders=(), settle=None, shapes=None,
    ):  # fmt: skip
        self.model = model
        self.detector = detector
        self.encoder = encoder
        self.image_size = image_size
        self.shrink_factor = shrink_factor
        self.batch_size = batch_size
        self.pixel_boost = pixel_boost
        self.decoders = tuple(decoders)
        self.settle = settle
        self.shapes = shapes
        self._side = image_size * pixel_boost
        self._paster = FacePaster(paste or PasteOptions(), self._side, shrink_factor)
        aligned = Crop(landmark_template(self._side, shrink_factor), self._side, self._side, shrink_factor)
        self._crops = [aligned, *self._paster.crops]

    @classmethod
    def from_export(
        cls, path, retina_path=None, arcface_path=None, engine="keras", precision="float32", decoder=None,
        det_size=None, **options
    ):  # fmt: skip
        """Builds a swapper from an exported model.

        The card next to the model says how faces are aligned, which identity encoder to use, and what else the
        network takes. Without a card, the conventions of the file's authors apply.

        Args:
            path: the model's file, or its name in `facedancer weights list`: "lite" is in the package.
            retina_path: detector weights, a name of the registry or a path; None for the default.
            arcface_path: identity encoder weights, likewise; None for the encoder that the card names.
            engine, precision: see `engines.load_engine`.
            decoder: name of the decoder to load, if the swapper has several; the others are not loaded.
            det_size: longer side in pixels of images given to the detector; None chooses by image size.
            options: the arguments of the class from `batch_size` on.

        Raises:
            UserError: if a file is missing or damaged, or model, card and encoder do not fit together.
        """
        from facedancer.arcface_model import IdentityEncoder
        from facedancer.arcface_model.face_shapes import load_face_shapes
        from facedancer.face_parts.dense_landmarks import load_face_mesh
        from facedancer.face_parts.turned_faces import settle
        from facedancer.models.families import card_of, decoders_of
        from facedancer.retinaface import FaceDetector

        path = find_weights(path)
        decoders = decoders_of(path)
        if decoders:
            first = find_decoder(path, decoders, decoder or decoders[0])
            model = DecoderEngine(path, engine, precision, first)
        elif decoder:
            raise UserError(f"{path} has no decoders: it takes a source")
        else:
            model = load_engine(path, engine, precision)
        size, dim = model.image_size, model.embedding_dim
        card = card_of(path, size, dim)
        if (card.image_size, card.embedding_dim) != (size, dim):
            raise UserError(
                f"{path} takes {size}-pixel faces and {dim}-d embeddings, its card says {card.image_size} and"
                f" {card.embedding_dim}; does the card belong to another model?"
            )
        encoder_name = arcface_path or card.identity_encoder
        encoder = IdentityEncoder(encoder_name, shrink_factor=card.shrink_factor)
        if dim and encoder.dim != dim:
            raise UserError(
                f"{path} takes {dim}-d embeddings, the identity encoder {encoder_name} gives {encoder.dim}-d ones;"
                " swap with the encoder that the model was trained with"
            )
        shapes = card.face_shapes and load_face_shapes(card.face_shapes, size, card.shrink_factor)
        if (shapes and shapes.dim) != model.coefficients_dim:
            raise UserError(
                f"{path} takes {model.coefficients_dim or 'no'} coefficients of a face's shape, the encoder"
                f" {card.face_shapes} of its card gives {shapes and shapes.dim}; does the card belong to another model?"
            )
        load_face_mesh()  # for `settle`; fails now if it is missing
        options = {"batch_size": model.batch_size, "decoders": decoders, "settle": settle, "shapes": shapes, **options}
        return cls(model, FaceDetector(retina_path, max_side=det_size), encoder, size, card.shrink_factor, **options)

    def align_source(self, source, is_aligned=False):
        """Crops the largest face from a source image.

        Args:
            source: (H, W, 3) uint8 RGB.
            is_aligned: the image is already an aligned, square face, and is only resized.

        Returns:
            (S, S, 3) uint8 RGB.

        Raises:
            UserError: if there is no face in it.
        """
        if is_aligned:
            height, width = source.shape[:2]
            if height != width:
                raise UserError(f"an aligned source is square, this one has {width}×{height} pixels")
            return cv2.resize(source, (self.image_size, self.image_size), interpolation=cv2.INTER_AREA)
        (faces,) = self.detector.detect([source])
        face = largest_face(self.settled(source, faces and [largest_face(faces)]))
        if face is None:
            raise UserError("there is no face in the source picture")
        return warp_to_aligned(source, self._align_matrix(face.landmarks), self.image_size)

    def source(self, source, is_aligned=False):
        """Returns the `sources.Source` of a source image; arguments as for `align_source`."""
        return source_of(self, self.align_source(source, is_aligned)[None])

    def find_decoder(self, name):
        """Returns the number of a decoder. Raises `UserError` if none has that name."""
        return find_decoder("this swapper", self.decoders, name)

    def swap(self, image, source):
        """Swaps every face in an image with the largest face of another image, or with a decoder's person.

        Args:
            image: the target, (H, W, 3) uint8 RGB.
            source: (H, W, 3) uint8 RGB; for a swapper with decoders, the name of one.

        Returns:
            A new image, (H, W, 3) uint8 RGB; equal to the target if that has no face.

        Raises:
            UserError: if the source has no face, no decoder has that name, or a face could not be swapped.
            ValueError: if an array has another shape or dtype.
        """
        given = self.find_decoder(source) if self.decoders else self.source(source).given
        (swapped,) = self.swap_frames([image], given)
        if swapped.is_bad:
            raise UserError("the network gave no finite numbers for a face of the picture")
        return swapped.image

    def swap_frames(self, frames, source):
        """Swaps every face of several frames with one identity; detects and swaps in batches across frames.

        Args:
            frames: list of (H, W, 3) uint8 RGB, left as they are.
            source: as in `PlacedFace`.

        Returns:
            A `SwappedFrame` for each frame.
        """
        found = zip(frames, self.detector.detect(frames), strict=True)
        placed = [[PlacedFace(face.landmarks, source) for face in self.settled(frame, faces)] for frame, faces in found]
        return self.swap_placed(frames, placed)

    def swap_placed(self, frames, placed):
        """Swaps the given faces of several frames, in batches across frames.

        Args:
            frames: list of (H, W, 3) uint8 RGB, left as they are.
            placed: for each frame a list of `PlacedFace`.

        Returns:
            A `SwappedFrame` for each frame.
        """
        results = [SwappedFrame(frame.copy(), []) for frame in frames]
        work, size = [], self._side
        for index, faces in enumerate(placed):
            here = []
            for face in faces:
                try:
                    here.append((index, align_matrix(face.landmarks, size, self.shrink_factor), face))
                except (ValueError, np.linalg.LinAlgError):
                    results[index] = replace(results[index], is_bad=True)
            # The nearest face is pasted last, over those behind it.
            work += sorted(here, key=lambda item: -scale_of(item[1]))
        # A black border would bleed into faces at the frame's edge.
        aligned = [warp_to_aligned(frames[i], matrix, size, cv2.BORDER_REPLICATE) for i, matrix, _ in work]
        boost = self.pixel_boost
        tiles = [tile for face in aligned for tile in split_to_tiles(face, boost)]
        sources = [face.source for _, _, face in work for _ in range(boost * boost)]
        swapped = self._swap_aligned(tiles, sources)
        masks = self._paster.masks([frames[i] for i, _, _ in work], [matrix for _, matrix, _ in work])
        for number, (index, frame_to_aligned, placed_face) in enumerate(work):
            face = join_tiles(swapped[number * boost * boost : (number + 1) * boost * boost], boost)
            if not np.isfinite(face).all():
                results[index] = replace(results[index], is_bad=True)
                continue
            region = self._paster.paste(
                results[index].image, np.clip(face, 0, 255), aligned[number], masks[number], frame_to_aligned,
                placed_face.weight,
            )  # fmt: skip
            if region:
                results[index].regions.append(region)
                _keep_gray(frames[index], results[index].image, region)
        return results

    def reach(self, placed, size):
        """Returns the box `(x1, y1, x2, y2)` of a frame that swapping reads and changes.

        Args:
            placed: list of `PlacedFace`.
            size: `(width, height)` of the frame.
        """
        corners = [np.zeros((1, 2))]  # used if there is no face
        for face in placed:
            with contextlib.suppress(ValueError, np.linalg.LinAlgError):
                aligned_to_frame = invert_affine(align_matrix(face.landmarks, self._side, self.shrink_factor))
                for crop in self._crops:
                    found = transform_points(aligned_to_frame, crop.corners)
                    # Interpolation and downscaling read beyond the crop.
                    margin = 2 * max(1, np.linalg.norm(found[1] - found[0]) / crop.size) + 2
                    corners += [found - margin, found + margin]
        corners = np.concatenate(corners[1:] or corners)
        low = np.clip(np.floor(corners.min(0)), 0, np.subtract(size, 1))
        high = np.clip(np.ceil(corners.max(0)) + 1, low + 1, size)
        return tuple(int(n) for n in (*low, *high))

    def embed_placed(self, frame, landmarks):
        """Returns the identity embeddings (n, dim) of faces whose landmarks (n, 5, 2) in a frame are known."""
        faces = [
            warp_to_aligned(frame, self._align_matrix(points), self.image_size, cv2.BORDER_REPLICATE)
            for points in landmarks
        ]
        return self.encoder(np.stack(faces))

    def settled(self, image, faces, before=()):
        """Returns the detected faces of an image after `turned_faces.settle`, or unchanged without it."""
        return self.settle(image, faces, before, self.detector.detect) if self.settle else faces

    def _align_matrix(self, landmarks):
        return align_matrix(landmarks, self.image_size, self.shrink_factor)

    def _swap_aligned(self, faces, sources):
        """Swaps aligned faces: list of (S, S, 3) uint8 -> list of (S, S, 3) float32, roughly in [0, 255]."""
        swapped = []
        for start, size in _batches(len(faces), self.batch_size):
            targets, given = (np.stack(items[start : start + size]) for items in (faces, sources))
            if self.decoders:
                inputs = {"decoder": given}
            elif self.shapes is None:
                inputs = {"source_embedding": given}
            else:
                embedding, coefficients = np.split(given, [self.encoder.dim], axis=1)
                inputs = {
                    "source_embedding": embedding,
                    "source_coefficients": coefficients,
                    "target_coefficients": self.shapes(targets),
                }
            inputs["target"] = to_signed(targets)
            swapped.extend((self.model.predict_on_batch(inputs) + 1) * 127.5)
        return swapped


def _keep_gray(frame, swapped, region):
    """Removes the colors of a region `(x1, y1, x2, y2)` of `swapped`, in place, if the frame has none there."""
    x1, y1, x2, y2 = region
    before, after = frame[y1:y2, x1:x2], swapped[y1:y2, x1:x2]
    if (before == before[..., :1]).all():
        after[:] = cv2.cvtColor(cv2.cvtColor(after, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def find_decoder(path, decoders, name):
    """Returns the number of the decoder with a given name.

    Args:
        path: the swapper's file, for the error message.
        decoders: the names of its decoders, in order.
        name: the decoder's name.

    Raises:
        UserError: if there is none.
    """
    if name not in decoders:
        raise UserError(f"{path} has no decoder named {name}; known are {', '.join(decoders)}")
    return decoders.index(name)


def split_to_tiles(face, boost):
    """Splits (n S, n S, 3) into n² interleaved images (S, S, 3), each with every n-th pixel; n is `boost`."""
    return [face[y::boost, x::boost] for y in range(boost) for x in range(boost)]


def join_tiles(tiles, boost):
    """The inverse of `split_to_tiles`."""
    if boost == 1:
        return tiles[0]
    size = len(tiles[0])
    rows = np.stack(tiles).reshape(boost, boost, size, size, 3)
    return np.ascontiguousarray(
        rows.transpose(
            2,
            0,
            3,
            1,
            4,
        ).reshape(size * boost, size * boost, 3)
    )


def _batches(count, largest):
    """Yields `(start, size)` of batches whose sizes are powers of two, so that the network is traced for few sizes."""
    start = 0
    while start < count:
        size = 1 << (min(count - start, largest).bit_length() - 1)
        yield start, size
        start += size
