"""Animates a swap between two sources.

python video_swap/interpolate.py --swap_source a.jpg --swap_source2 b.jpg --img_path target.jpg --output between.gif
"""

import sys

from facedancer.video_swap.interpolate import main

sys.exit(main())
