#!/bin/sh
# A small convolutional network from scratch on three tags: classes of at least 1%, parts of 70, 15 and 15%.
#
#     sh examples/fashion_cnn_from_scratch.sh --labels styles.csv
#
# Data: styles.csv and images/ of Kaggle's Fashion Product Images (small). Pictures stay as they are, 80 pixels high and
# 60 wide. Options after the script's name replace the ones below.
#
# Measured on 6,000 pictures, 2 cores, 7 minutes: test accuracies 84.2, 95.9 and 91.4%, mean 90.5.
exec multilabel fit --labels styles.csv --tags gender,masterCategory,subCategory --min-share 0.01 --rare drop \
    --backbone cnn --image-size 80x60 --filters 32,64,128,256 --dropout 0.3 --train-backbone --augment light \
    --epochs 25 --lr 2e-3 --schedule cosine --warmup 2 --monitor accuracy --patience 25 --batch-size 64 \
    --test-share 0.15 --val-share 0.15 "$@"
