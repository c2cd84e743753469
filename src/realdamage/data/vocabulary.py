"""The words a manifest may use. The reader, the synthesis recipes and the metrics share them.

Every tuple is ordered: it is the order of the columns in a file, or of the rows in a printed table.
"""

from __future__ import annotations

LABELS = ("real", "synthetic")

# Kind -> the label it belongs to.
KIND_LABELS = {
    "original": "real",
    "damaged": "real",
    "annotated": "real",
    "ai_region": "synthetic",
    "ai_whole": "synthetic",
    "pasted": "synthetic",
}
KINDS = tuple(KIND_LABELS)

CONDITIONS = ("intact", "damaged", "unknown")

DAMAGES = (
    "cracked",
    "scratched",
    "stained",
    "dented",
    "torn",
    "holed",
    "creased",
    "crushed",
    "broken",
    "other",
)

SPLITS = ("train", "val", "test", "policy")

# The image codecs of our recipes, by family. They write into a photo what a generator's last stage
# writes, but nobody commits fraud with them alone: figures on them say nothing about the
# generators that people use.
CODECS = {
    "taesd": ("taesd", "taesdxl", "taesd3"),
    "taef2": ("taef2",),
    "house": ("house",),
    "house_bilinear": ("house_bilinear",),
    "house_nearest": ("house_nearest",),
    "house_shuffle": ("house_shuffle",),
    "house_transposed": ("house_transposed",),
}

REQUIRED_COLUMNS = ("file_name", "label")
# `file_name` first and the mask after it: the Hugging Face image-folder reader wants that order.
KNOWN_COLUMNS = (
    "file_name",
    "label",
    "kind",
    "condition",
    "damage",
    "generator",
    "family",
    "source",
    "group",
    "pair",
    "mask_file_name",
    "split",
    "sha256",
    "licence",
)

# Columns with a closed list of values. Columns that are not required may also be empty.
ALLOWED_VALUES = {
    "label": LABELS,
    "kind": KINDS,
    "condition": CONDITIONS,
    "damage": DAMAGES,
    "split": SPLITS,
}
