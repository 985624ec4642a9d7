"""Finds, aligns and crops the faces in a folder of images, for training.

    python dataset/crop_align.py --data_dir path/to/pictures --target_dir path/to/aligned

`--help` lists the other flags. Run again after an interruption, it goes on.
"""

import sys

from facedancer.dataset.crop_align import main

if __name__ == "__main__":
    sys.exit(main())
