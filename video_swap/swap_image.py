"""Gives every face in a picture the identity of a source picture.

    python video_swap/swap_image.py --facedancer_path exports/facedancer/facedancer_30.h5 \
        --img_path picture.jpg --swap_source face.png --output results/swapped_image.png
"""

import sys

from facedancer.video_swap.swap_image import main

sys.exit(main())
