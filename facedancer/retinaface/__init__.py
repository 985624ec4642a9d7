"""The frozen face detector: images in, boxes and five landmarks out. Keras is loaded when a detector is created."""

from facedancer.retinaface.detector import DetectedFace, FaceDetector, largest_face

__all__ = ["DetectedFace", "FaceDetector", "largest_face"]
