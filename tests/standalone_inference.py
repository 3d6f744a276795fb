"""Pictures → probabilities with an export and its sidecar alone: what a program without this package has to do.

    python standalone_inference.py model.onnx photo.jpg ...
    python standalone_inference.py model.tflite photo.jpg ...

Prints one JSON object per picture: by output, its probabilities; what is present; the likeliest class of each tag.
Needs NumPy, Pillow, and onnxruntime or ai-edge-litert.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from PIL import Image, ImageOps


def open_model(path):
    """A function from pixels, uint8 (n, height, width, 3), to probabilities by the name of the output."""
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda pixels: dict(zip(names, session.run(names, {"image": pixels}), strict=True))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    return lambda pixels: interpreter.get_signature_runner()(image=pixels)


def read_picture(path, size):
    """The whole picture upright, transparency over white, stretched to (height, width) with antialiasing."""
    height, width = size
    with Image.open(path) as opened:
        sideways = opened.getexif().get(0x0112, 1) >= 5
        opened.draft("RGB", (height, width) if sideways else (width, height))  # a large JPEG is decoded smaller
        image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def decide(sidecar, p):
    """What one picture shows, from its probabilities by output."""
    thresholds = {one["attribute"]: one["value"] for one in sidecar["thresholds"]}
    said = {"present": [], "tags": {}}
    for output in sidecar["outputs"]:
        of_it = p[output["name"]]
        if output["kind"] == "tag":
            said["tags"][output["tag"]] = output["names"][int(of_it.argmax())]
        else:
            said["present"] = [name for name, one in zip(output["names"], of_it, strict=True) if one > thresholds[name]]
    return said


def main(model, *pictures):
    with open(f"{model}.json", encoding="utf-8") as file:
        sidecar = json.load(file)
    run = open_model(model)
    for path in pictures:
        pixels = read_picture(path, sidecar["image_size"])
        p = {name: rows[0] for name, rows in run(pixels[np.newaxis]).items()}
        print(json.dumps({"p": {name: row.tolist() for name, row in p.items()}, **decide(sidecar, p)}))
    heavy = {"multilabel", "keras", "tensorflow"} & set(sys.modules)
    assert not heavy, heavy


if __name__ == "__main__":
    main(*sys.argv[1:])
