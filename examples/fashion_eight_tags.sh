#!/bin/sh
# EfficientNetB0 in two phases on eight tags: the heads alone (25 epochs at 5e-3), then everything (50 at 5e-5).
#
#     sh examples/fashion_eight_tags.sh --labels styles.csv
#
# Data: styles.csv and images/ of Kaggle's Fashion Product Images. Each phase stops early, with a patience of 10 and
# 20 epochs; a second phase that was interrupted continues with --resume. Options after the script's name replace the
# ones below; for brands, give --labels styles/ (the folder of JSON files) and --tags brandName,variantName,...
#
exec multilabel fit --labels styles.csv \
    --tags gender,masterCategory,subCategory,articleType,baseColour,season,year,usage --min-count 10 --rare drop \
    --backbone efficientnet_b0 --fine-tune all --augment light \
    --epochs 25,50 --lr 5e-3,5e-5 --patience 10,20 --test-share 0.15 --val-share 0.15 "$@"
