"""What is known of a rendered face: its labels, its landmarks, and the record of both."""

from dataclasses import dataclass

import numpy as np

LABELS = (
    "background", "skin", "brows", "eyes", "lips", "teeth", "mouth", "nose", "ears", "hair", "beard", "neck", "cloth",
    "glasses", "occluder",
)  # fmt: skip
BACKGROUND, SKIN, BROWS, EYES, LIPS, TEETH, MOUTH, NOSE, EARS, HAIR, BEARD, NECK, CLOTH, GLASSES, OCCLUDER = range(
    len(LABELS)
)
# What an identity may change in a picture of one and the same person and scene, but for shadows.
FACE_LABELS = (SKIN, BROWS, EYES, LIPS, TEETH, MOUTH, NOSE, BEARD)

# Among the 68: the middles of the eyelids, image-left eye first, the tip of the nose, the corners of the lips.
LEFT_LIDS, RIGHT_LIDS = [37, 38, 40, 41], [43, 44, 46, 47]
NOSE_TIP, LEFT_CORNER, RIGHT_CORNER = 30, 48, 54


@dataclass(frozen=True)
class SyntheticFace:
    """A picture of somebody who does not exist, with what is known of it.

    Pixels count from (0, 0), the centre of the first. In pictures of several people, this is one of them.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        landmarks: (5, 2) float32: image-left and image-right eye (the middle of its lids), tip of the nose,
            image-left and image-right corner of the lips. "Left" is that of the upright face.
        landmarks_68: (68, 2) float32, iBUG 300-W's points; those of the jaw stay on the jaw's bone.
        visible_68: (68,) bool: neither turned away nor behind anything but eyelashes.
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
        """(4,) float32 x1, y1, x2, y2 of the face from brows to chin, in pixels."""
        return np.concatenate([self.landmarks_68.min(0), self.landmarks_68.max(0)])

    def record(self):
        """Returns what is known, but for image and labels, in types that JSON has; rounded to 1/100."""

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
    """The (5, 2) landmarks among (68, 2) of them."""
    eyes = [points_68[lids].mean(0) for lids in (LEFT_LIDS, RIGHT_LIDS)]
    return np.stack([*eyes, points_68[NOSE_TIP], points_68[LEFT_CORNER], points_68[RIGHT_CORNER]])
