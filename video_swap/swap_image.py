"""Swaps the faces in an image, or in every image of a folder, with a source face.

    python video_swap/swap_image.py \
        --img_path picture.jpg --swap_source face.png --output results/swapped_image.png
"""

import sys

from facedancer.video_swap.swap_image import main

sys.exit(main())
