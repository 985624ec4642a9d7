"""Trains a face-swap model.

python train/train.py --preset lite --data_dir 'shards/faces_train_*-of-*.records' --export
"""

import sys

from facedancer.train.train import main

sys.exit(main())
