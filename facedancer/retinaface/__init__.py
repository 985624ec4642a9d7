"""The frozen face detector: images in, boxes and five landmarks out. Keras is loaded when a detector is created."""

from facedancer.retinaface.detector import DEFAULT_SIDE, DetectedFace, FaceDetector, largest_face

__all__ = ["DEFAULT_SIDE", "DetectedFace", "FaceDetector", "largest_face"]
