"""FaceDancer: train face-swap models, and swap faces in images and videos.

Importing the package imports no deep-learning library; TensorFlow is loaded when work begins.
"""

import os

# TensorFlow's C++ prints about the processor at every start; warnings and errors stay. Set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
