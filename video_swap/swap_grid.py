"""Swaps all pairs of the images in a folder into one labeled grid.

python video_swap/swap_grid.py --img_dir people --output grid.png
"""

import sys

from facedancer.video_swap.swap_grid import main

sys.exit(main())
