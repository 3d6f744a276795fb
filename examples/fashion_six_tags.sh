#!/bin/sh
# EfficientNetB0 on six tags, with early stopping and a checkpoint after each epoch.
#
#     sh examples/fashion_six_tags.sh --labels styles.csv
#
# Data: styles.csv and images/ of Kaggle's Fashion Product Images. What was interrupted continues with --resume.
# Options after the script's name replace the ones below.
#
exec multilabel fit --labels styles.csv --tags gender,subCategory,articleType,baseColour,season,usage \
    --min-count 10 --rare drop --backbone efficientnet_b0 --fine-tune all --augment light \
    --epochs 20,20 --lr 1e-3,1e-4 --patience 5,5 --test-share 0.15 --val-share 0.15 "$@"
