"""`FaceDetector`: images of any size in, bounding boxes and landmarks in their pixels out.

Large images are scaled down, small ones are kept. Images are padded at the right and bottom to multiples of 32, with
the color that the network's normalization maps to zero; images of equal padded size share a batch.

At 640 pixels the network finds faces from 24 pixels up to the whole image. Faces of a group in a large photograph are
smaller than that, and at a larger scale the photograph's large faces outgrow the network's anchors. So large images are
processed at two scales: small faces are taken from the larger one, all others from the smaller one.

RetinaFace gives several anchors of a face nearly the same score, with landmarks a few pixels apart. With the converted
network, a face is the mean of the anchors that overlap the best one closely, weighted by score, as in BlazeFace
(Bazarevsky et al., 2019). On 300 photographs this brought the landmarks a fifth closer to the consensus of twelve
shifted, scaled and mirrored views, and on three videos they jittered 13 to 63 % less. With a published file, a face is
its best anchor, as in the file's own decoding.

Neither scaling nor mirroring an image moved these landmarks, on average, by more than one percent of the eye distance
or half a pixel, so the network's coordinates are used as pixel-center coordinates without correction.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from facedancer.core.inference import runner
from facedancer.core.weights import find_weights
from facedancer.retinaface.anchors import box_overlaps, build_anchors, decode_boxes, decode_landmarks, suppress

DEFAULT_WEIGHTS = "retinaface_mobilenet025"
_STEP = 32  # sizes of the network's input are multiples of it
_BATCH_PIXELS = 2**20  # of the network's input in one batch; more is no faster on a CPU and takes memory
_CLOSE_OVERLAP = 0.6  # minimum overlap of anchors whose faces are averaged
DEFAULT_SIDE = 640  # longer side in pixels of the smaller scale, which every image is processed at
_LARGEST_SIDE = 3072  # maximum side chosen by image size; a square image takes 0.6 GB
_SMALL = 40  # width in pixels at `DEFAULT_SIDE` below which faces are taken from the larger scale
_WORTHWHILE = 1.2  # a second scale that is larger by less shows no more faces


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face in an image, in pixels; the center of the first pixel is (0, 0).

    Attributes:
        bounding_box: (4,) float32 x1, y1, x2, y2; may extend beyond the image.
        landmarks: (5, 2) float32 x, y: image-left eye, image-right eye, nose, image-left and image-right mouth corner.
        score: probability of a face, [0, 1].
    """

    bounding_box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def area(self):
        """Area of the bounding box in square pixels."""
        x1, y1, x2, y2 = self.bounding_box
        return float((x2 - x1) * (y2 - y1))


def largest_face(faces):
    """Returns the face with the largest bounding box, or None."""
    return max(faces, key=lambda face: face.area, default=None)


class FaceDetector:
    """Finds faces with RetinaFace.

    Args:
        weights: path of a `.h5`, ours or a published RetinaFace, or a name from the registry of weights. None is the
            default, MobileNet-0.25.
        score_threshold: faces must score higher than this, [0, 1].
        max_side: larger images are scaled down to this longer side in pixels. The default network finds faces that are
            then 24 pixels wide, and hardly any below 16. None chooses by image size: half of the longer side, at
            least 640 and at most 3,072, so that faces are found from 60 pixels on.

    Raises:
        UserError: if the weights are missing (the message says what to do) or are not a RetinaFace's.
    """

    def __init__(self, weights=None, score_threshold=0.6, max_side=DEFAULT_SIDE):
        from facedancer.retinaface.conversion import load_retinaface

        self.score_threshold = score_threshold
        self.max_side = max_side
        self._model, self._is_published = load_retinaface(find_weights(weights or DEFAULT_WEIGHTS))
        self._run = runner(self._model)
        normalization = self._model.get_layer("normalize")
        self._fill = np.rint(-np.array(normalization.offset) / normalization.scale).astype(np.uint8)

    def detect(self, images):
        """Finds the faces in each image.

        Args:
            images: list of (H, W, 3) uint8 RGB, of any sizes.

        Returns:
            For each image, a list of `DetectedFace` by descending score.

        Raises:
            ValueError: if an image is not (H, W, 3) uint8 with at least one pixel.
        """
        for index, image in enumerate(images):
            _check_image(image, index)
        sizes = [self.working_size(*image.shape[:2]) for image in images]
        usual = [_reduced_size(size, DEFAULT_SIDE) for size in sizes]
        faces = self._look(images, usual)
        larger = [i for i, size in enumerate(sizes) if max(size) > _WORTHWHILE * max(usual[i])]
        seen_larger = self._look([images[i] for i in larger], [sizes[i] for i in larger])
        for index, found in zip(larger, seen_larger, strict=True):
            small = _SMALL * max(images[index].shape) / DEFAULT_SIDE
            faces[index] = _with_small_faces(faces[index], found, small)
        return faces

    def working_size(self, height, width):
        """Returns the height and width of the largest scale at which an image of that size is processed."""
        side = self.max_side
        if side is None:
            side = min(max(DEFAULT_SIDE, max(height, width) // 2), _LARGEST_SIDE)
        return _reduced_size((height, width), side)

    def _look(self, images, sizes):
        """Returns a list of faces for each image, processed at the (height, width) given for it."""
        by_size = {}
        for index, size in enumerate(sizes):
            by_size.setdefault(tuple(-(-side // _STEP) * _STEP for side in size), []).append(index)
        faces = [None] * len(images)
        for filled, indices in by_size.items():
            count = max(1, _BATCH_PIXELS // (filled[0] * filled[1]))
            for start in range(0, len(indices), count):
                part = indices[start : start + count]
                found = self._detect_batch([images[i] for i in part], [sizes[i] for i in part], filled)
                for index, here in zip(part, found, strict=True):
                    faces[index] = here
        return faces

    def _detect_batch(self, images, sizes, filled):
        batch = np.empty((len(images), *filled, 3), np.uint8)
        for canvas, image, (height, width) in zip(batch, images, sizes, strict=True):
            if (height, width) != image.shape[:2]:
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            canvas[:height, :width] = image
            canvas[height:], canvas[:height, width:] = self._fill, self._fill
        outputs = self._run(batch)
        scores = outputs["scores"][..., 1]
        owners, anchors = np.nonzero(scores > self.score_threshold)
        scores = scores[owners, anchors]
        on = build_anchors(*filled)[anchors]
        boxes = decode_boxes(outputs["boxes"][owners, anchors], on)
        landmarks = decode_landmarks(outputs["landmarks"][owners, anchors], on)
        found = []
        for owner, (image, size) in enumerate(zip(images, sizes, strict=True)):
            mine = slice(*np.searchsorted(owners, [owner, owner + 1]))
            found.append(self._gather(image, size, boxes[mine], landmarks[mine], scores[mine]))
        return found

    def _gather(self, image, size, boxes, landmarks, scores):
        """Returns the faces of one image's candidate anchors."""
        height, width = size
        scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
        faces = []
        for best in suppress(boxes, scores):
            if self._is_published:
                box, points = boxes[best], landmarks[best]
            else:
                weights = scores * (box_overlaps(boxes[best], boxes) > _CLOSE_OVERLAP)
                box, points = (np.average(rows, axis=0, weights=weights) for rows in (boxes, landmarks))
            faces.append(DetectedFace(box * np.tile(scale, 2), points * scale, float(scores[best])))
        return faces


def _reduced_size(size, side):
    """Returns (height, width), scaled down to `side` pixels on the longer side if that is larger."""
    scale = min(1.0, side / max(size))
    return tuple(max(1, round(pixels * scale)) for pixels in size)


def _with_small_faces(faces, seen_larger, small):
    """Merges the faces of both scales by descending score; those below `small` pixels come from the larger scale."""
    kept = [face for face in faces if _width(face) >= small]
    for face in seen_larger + faces:
        if _width(face) < small and not any(_is_same(face, other) for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.score)


def _width(face):
    return face.bounding_box[2] - face.bounding_box[0]


def _is_same(face, other):
    """Whether the center of a face lies in the bounding box of another."""
    x, y = (face.bounding_box[:2] + face.bounding_box[2:]) / 2
    x1, y1, x2, y2 = other.bounding_box
    return x1 < x < x2 and y1 < y < y2


def _check_image(image, index):
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    ):
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"images[{index}] is {found}, expected an array (H, W, 3) uint8, RGB")
