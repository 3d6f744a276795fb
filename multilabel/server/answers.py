"""What the server answers, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Attribute(BaseModel):
    """What the model says of one attribute."""

    probability: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1, description="It is present if its probability is greater.")
    present: bool


class Class(BaseModel):
    """A class of a tag."""

    name: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class Tag(BaseModel):
    """What the model says of one tag."""

    name: str | None = Field(alias="class", description="The likeliest class; null if it is undecided.")
    probability: float = Field(ge=0, le=1, description="Of the likeliest class.")
    top: list[Class] = Field(description="The three likeliest classes, the likeliest first.")


class Explanation(BaseModel):
    """Where in the picture the evidence lies."""

    name: str = Field(description="The attribute, or the tag and its likeliest class.")
    exact: bool = Field(description="Whether the map adds up to the logit; otherwise it is Grad-CAM.")
    overlay: str = Field(description="A `data:` URI of a PNG to stretch over the picture: red for it, blue against.")


class Picture(BaseModel):
    """What the model says of one picture: predictions, or an error."""

    image: str = Field(description="What the request called it.")
    error: str | None = Field(description="Why it cannot be predicted; then the rest is null.")
    present: list[str] | None = Field(description="Names of the attributes that are present.")
    attributes: dict[str, Attribute] | None
    tags: dict[str, Tag] | None
    explanation: Explanation | None = Field(None, description="If `explain` asked for it.")


class Predictions(BaseModel):
    """One entry for each picture, in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "pictures": [
                    {
                        "image": "photo.jpg",
                        "error": None,
                        "present": ["stripes"],
                        "attributes": {"stripes": {"probability": 0.93, "threshold": 0.23, "present": True}},
                        "tags": {
                            "gender": {
                                "class": "Men",
                                "probability": 0.99,
                                "top": [{"class": "Men", "probability": 0.99}, {"class": "Women", "probability": 0.01}],
                            }
                        },
                    }
                ]
            }
        }
    )
    pictures: list[Picture]


class Error(BaseModel):
    """Why a request is refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": "The request has more than 32 files; send them in several requests.",
                "request_id": "8f4f79b3f745439c8828d04211eeb61c",
            }
        }
    )
    error: str = Field(description="A sentence that says what to do.")
    request_id: str
    pictures: list[Picture] | None = Field(None, description="Where no picture could be predicted: why.")


class State(BaseModel):
    """How the server is."""

    status: str


class KnownAttribute(BaseModel):
    """An attribute that the model knows."""

    name: str
    threshold: float
    not_better_than_chance: bool


class KnownTag(BaseModel):
    """A tag that the model knows."""

    name: str
    classes: list[str]
    not_better_than_chance: bool


class Model(BaseModel):
    """The model that is served."""

    run_name: str
    version: str = Field(description="Of multilabel.")
    sha256: str | None = Field(description="Of its weights, or of the exported file.")
    image_size: list[int] = Field(description="Height and width, in pixels, that pictures are stretched to.")
    explains: bool = Field(description="Whether `explain` is answered: of a bundle in TensorFlow.")
    attributes: list[KnownAttribute]
    tags: list[KnownTag]
    scores: list[dict[str, Any]] | None = Field(
        description="What `fit` measured: each score with its 95% interval, chance level and number of known labels; "
        "null for an export."
    )
    limits: dict[str, float] = Field(description="What a request may bring.")
