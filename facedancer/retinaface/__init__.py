"""The frozen face detector: pictures in, boxes and five landmarks out. Keras loads when a detector is made."""

from facedancer.retinaface.detector import DetectedFace, FaceDetector, largest_face

__all__ = ["DetectedFace", "FaceDetector", "largest_face"]
