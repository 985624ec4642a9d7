"""Swaps the faces in a video with a source face.

    python video_swap/multi_face_single_source.py \
        --vid_path video.mp4 --swap_source face.png --output results/swapped_video.mp4
"""

import sys

from facedancer.video_swap.multi_face_single_source import main

sys.exit(main())
