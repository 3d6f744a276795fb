#!/bin/sh
# Frozen ResNet50 and masked binary cross-entropy on four attributes, about 10% of the labels NA.
#
#     sh examples/aimonk_resnet50.sh --labels labels.txt
#
# Data: Aimonk's labels.txt and images/. Writes the bundle model/, in which loss_curve.png is called
# Aimonk_multilabel_problem. Options after the script's name replace the ones below.
#
# Expect: on 700 of its pictures, with MobileNetV2 in place of ResNet50 (whose weights were not at hand), macro F1 0.67 on the
# validation part, and three of the four attributes named as not better than chance. 20 seconds on 2 cores.
exec multilabel fit --labels labels.txt --run-name Aimonk_multilabel_problem \
    --backbone resnet50 --image-size 224 --lr 1e-4 --epochs 5 --batch-size 32 "$@"
