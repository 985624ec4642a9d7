"""Ground truth of a rendered face: labels, landmarks, and their record."""

from dataclasses import dataclass

import numpy as np

LABELS = (
    "background", "skin", "brows", "eyes", "lips", "teeth", "mouth", "nose", "ears", "hair", "beard", "neck", "cloth",
    "glasses", "occluder",
)  # fmt: skip
BACKGROUND, SKIN, BROWS, EYES, LIPS, TEETH, MOUTH, NOSE, EARS, HAIR, BEARD, NECK, CLOTH, GLASSES, OCCLUDER = range(
    len(LABELS)
)
# The labels that an identity may change in a picture of the same person and scene, apart from shadows.
FACE_LABELS = (SKIN, BROWS, EYES, LIPS, TEETH, MOUTH, NOSE, BEARD)

# Among the 68: eyelid centers (image-left eye first), tip of the nose, corners of the lips.
LEFT_LIDS, RIGHT_LIDS = [37, 38, 40, 41], [43, 44, 46, 47]
NOSE_TIP, LEFT_CORNER, RIGHT_CORNER = 30, 48, 54


@dataclass(frozen=True)
class SyntheticFace:
    """A picture of a person who does not exist, with ground truth.

    Pixel coordinates start at (0, 0), the center of the first pixel. In pictures of several people, this is one of
    them.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        landmarks: (5, 2) float32: image-left and image-right eye (center of the lids), tip of the nose, image-left and
            image-right corner of the lips; left and right as in the upright face.
        landmarks_68: (68, 2) float32, iBUG 300-W's points; jaw points stay on the jawbone.
        visible_68: (68,) bool: facing the camera, and not behind anything but eyelashes.
        labels: (H, W) uint8, indices into `LABELS`.
        pose: yaw, pitch, roll in degrees.
        expression: morph name (ARKit's) -> weight.
        gaze: yaw and pitch of the eyes within the head, degrees.
        identity_number, person_number, scene_number: the seeds.
    """

    image: np.ndarray
    landmarks: np.ndarray
    landmarks_68: np.ndarray
    visible_68: np.ndarray
    labels: np.ndarray
    pose: tuple[float, float, float]
    expression: dict
    gaze: tuple[float, float]
    identity_number: int
    person_number: int
    scene_number: int

    @property
    def bounding_box(self):
        """The box (4,) float32 x1, y1, x2, y2 of the face from brows to chin, in pixels."""
        return np.concatenate([self.landmarks_68.min(0), self.landmarks_68.max(0)])

    def record(self):
        """Returns the ground truth except image and labels, as JSON types rounded to 1/100."""

        def rounded(values):
            return np.round(np.asarray(values, np.float64), 2).tolist()

        return {
            "identity": self.identity_number,
            "person": self.person_number,
            "scene": self.scene_number,
            "landmarks": rounded(self.landmarks),
            "landmarks_68": rounded(self.landmarks_68),
            "visible_68": [int(visible) for visible in self.visible_68],
            "bounding_box": rounded(self.bounding_box),
            "pose": rounded(self.pose),
            "gaze": rounded(self.gaze),
            "expression": {name: round(float(value), 3) for name, value in self.expression.items() if value},
        }


def five_of(points_68):
    """Returns the (5, 2) landmarks from the (68, 2)."""
    eyes = [points_68[lids].mean(0) for lids in (LEFT_LIDS, RIGHT_LIDS)]
    return np.stack([*eyes, points_68[NOSE_TIP], points_68[LEFT_CORNER], points_68[RIGHT_CORNER]])
