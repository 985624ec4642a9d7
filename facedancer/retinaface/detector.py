"""`FaceDetector`: pictures of any sizes in, boxes and landmarks in their pixels out.

Large pictures are reduced, small ones taken as they are. On the right and below, a picture is filled up with the colour
that the network's normalisation makes zero, to multiples of 32; pictures that then have the same size share a batch.

RetinaFace gives several anchors of one face nearly the same score and, a few pixels apart, its landmarks. With the
converted network a face is the mean of those that overlap the best one closely, weighted by score, as in BlazeFace
(Bazarevsky et al., 2019). On 300 photographs this brought the landmarks a fifth closer to where twelve shifted, scaled
and mirrored views agree, and on three videos they trembled 13 to 63 % less. A published file gives its own rows, the
best anchor of each face.

Neither the scale at which a picture is seen nor a mirror moved these landmarks, on average, by more than one per cent
of the eye distance or half a pixel, so the network's coordinates are taken for those of pixel centres as they are.
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
_CLOSE_OVERLAP = 0.6  # of anchors whose faces are averaged


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
        weights: path of a `.h5`, ours or a published RetinaFace, or a name of the registry of weights. None is the
            embedded MobileNet-0.25.
        score_threshold: faces must score higher than this.
        max_side: larger images are reduced to this many pixels on the longer side first. The embedded network
            finds faces that are then 24 pixels wide, hardly any below 16.

    Raises:
        UserError: if the weights are missing (the message says what to do) or are not a RetinaFace's.
    """

    def __init__(self, weights=None, score_threshold=0.6, max_side=640):
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
        by_size = {}
        for index, image in enumerate(images):
            _check_image(image, index)
            size = tuple(-(-side // _STEP) * _STEP for side in self.working_size(*image.shape[:2]))
            by_size.setdefault(size, []).append(index)
        faces = [None] * len(images)
        for size, indices in by_size.items():
            count = max(1, _BATCH_PIXELS // (size[0] * size[1]))
            for start in range(0, len(indices), count):
                part = indices[start : start + count]
                for index, found in zip(part, self._detect_batch([images[i] for i in part], size), strict=True):
                    faces[index] = found
        return faces

    def working_size(self, height, width):
        """Returns the height and width to which an image of that size is resized for detection."""
        scale = min(1.0, self.max_side / max(height, width))
        return tuple(max(1, round(side * scale)) for side in (height, width))

    def _detect_batch(self, images, size):
        batch = np.empty((len(images), *size, 3), np.uint8)
        for canvas, image in zip(batch, images, strict=True):
            height, width = self.working_size(*image.shape[:2])
            if (height, width) != image.shape[:2]:
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            canvas[:height, :width] = image
            canvas[height:], canvas[:height, width:] = self._fill, self._fill
        outputs = self._run(batch)
        scores = outputs["scores"][..., 1]
        owners, anchors = np.nonzero(scores > self.score_threshold)
        scores = scores[owners, anchors]
        on = build_anchors(*size)[anchors]
        boxes = decode_boxes(outputs["boxes"][owners, anchors], on)
        landmarks = decode_landmarks(outputs["landmarks"][owners, anchors], on)
        found = []
        for owner, image in enumerate(images):
            mine = slice(*np.searchsorted(owners, [owner, owner + 1]))
            found.append(self._gather(image, boxes[mine], landmarks[mine], scores[mine]))
        return found

    def _gather(self, image, boxes, landmarks, scores):
        """Makes faces of one picture's candidates."""
        height, width = self.working_size(*image.shape[:2])
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
