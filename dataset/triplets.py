"""Makes training data with exact truth from portraits; one per person is enough.

    python dataset/crop_align.py --data_dir portraits --target_dir portraits_192 --im_size 192 --shrink_factor 0.6667
    python dataset/triplets.py --data_dir portraits_192 --target_dir shards --data_name portraits --count 100000

`--help` lists the other flags. Run again after an interruption, it goes on.
"""

import sys

from facedancer.dataset.triplets import main

if __name__ == "__main__":
    sys.exit(main())
