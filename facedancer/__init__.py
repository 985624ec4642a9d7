"""FaceDancer: train face swappers, and swap faces in pictures and videos.

Importing the package imports no deep-learning library; TensorFlow loads when work begins.
"""

__version__ = "0.1.0"
