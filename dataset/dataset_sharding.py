"""Writes aligned faces to TFRecord shards, with a share of the people held out for validation.

    python dataset/dataset_sharding.py --data_dir path/to/aligned --target_dir path/to/shards --data_name celeba \\
        --validation_fraction 0.05

`--help` lists the other flags.
"""

import sys

from facedancer.dataset.dataset_sharding import main

if __name__ == "__main__":
    sys.exit(main())
