"""Every form of declaration is read from a file that the test wrote itself, and means what its
standard says."""

import html
import io
import json
import zlib

import pytest
from PIL import Image

from realdamage.provenance import read_provenance
from realdamage.provenance.labels import FIELDS

LABEL = {key: f"value {index}" for index, key in enumerate(FIELDS)} | {"Label": "1"}
JSON = json.dumps(LABEL)
WRAPPED = json.dumps({"AIGC": LABEL})
ESCAPED = html.escape(JSON)
PARAMETERS = (
    "a cup, cracked\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512"
)
NODES = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
    "4": {"class_type": "CheckpointLoaderSimple"},
}
DRAWN = {"nodes": [{"id": 1, "type": "KSampler"}, {"id": 2, "type": "SaveImage"}], "links": []}
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
LABEL_ELEMENT = f"<ai:AIGC>{ESCAPED}</ai:AIGC>"
UNICODE_PARAMETERS = {0x9286: b"UNICODE\x00" + PARAMETERS.encode("utf-16-be")}


def itxt(keyword, text, *, compressed=False):
    head = keyword + (b"\0\1\0\0\0" if compressed else b"\0\0\0\0\0")
    return head + (zlib.compress(text) if compressed else text)


def avif(files):
    out = io.BytesIO()
    Image.open(io.BytesIO(files.plain_png)).save(out, "AVIF", xmp=files.xmp(LABEL_ELEMENT))
    return out.getvalue()


def heic(files):
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    image = pillow_heif.from_pillow(Image.open(io.BytesIO(files.plain_png)))
    exif = Image.Exif()
    exif[0x010E] = WRAPPED
    image.save(out, exif=exif.tobytes())
    return out.getvalue()


def comment(value, order="<"):
    """A JPEG with this UserComment."""
    return lambda f: f.exif_jpeg(f.tiff({}, {0x9286: value}, order))


def chunk(kind, data, *, late=False):
    """A PNG with this chunk."""
    return lambda f: f.png((kind, data), late=late)


STRUCTURE = "".join(f"<TC260:{key}>{value}</TC260:{key}>" for key, value in LABEL.items())
PNG_TEXT = b"AIGC\x00" + JSON.encode()
EXIF_LABEL = {0x9286: b"ASCII\x00\x00\x00" + WRAPPED.encode()}
LABELS = {
    "tc260_xmp: element": lambda f: f.xmp_jpeg(f"<TC260:AIGC>{ESCAPED}</TC260:AIGC>"),
    "tc260_xmp: attribute": lambda f: f.xmp_jpeg(attributes=f'TC260:AIGC="{ESCAPED}"'),
    "tc260_xmp: breaks the XML": lambda f: f.xmp_jpeg(attributes=f'TC260:AIGC="{JSON}"'),
    "tc260_xmp: structure": lambda f: f.xmp_jpeg(
        f'<TC260:AIGC rdf:parseType="Resource">{STRUCTURE}</TC260:AIGC>'
    ),
    "tc260_xmp: PNG": lambda f: f.png((b"iTXt", itxt(b"XML:com.adobe.xmp", f.xmp(LABEL_ELEMENT)))),
    "tc260_xmp: PNG text": lambda f: f.png((b"tEXt", b"AIGC\0" + f.xmp(LABEL_ELEMENT))),
    "tc260_xmp: WebP": lambda f: f.webp((b"XMP ", f.xmp(LABEL_ELEMENT))),
    "tc260_xmp: TIFF": lambda f: f.tiff({0x02BC: f.xmp(LABEL_ELEMENT)}),
    "tc260_xmp: GIF": lambda f: f.picture("GIF")[:-1] + f.xmp(LABEL_ELEMENT) + b"\x3b",
    "tc260_xmp: AVIF": avif,
    "tc260_xmp: behind the end of a JPEG": lambda f: f.plain_jpeg + f.xmp(LABEL_ELEMENT),
    "tc260_png: tEXt": chunk(b"tEXt", PNG_TEXT),
    "tc260_png: zTXt": chunk(b"zTXt", b"AIGC\x00\x00" + zlib.compress(JSON.encode())),
    "tc260_png: iTXt": chunk(b"iTXt", itxt(b"AIGC", JSON.encode())),
    "tc260_png: iTXt, compressed": chunk(b"iTXt", itxt(b"AIGC", JSON.encode(), compressed=True)),
    "tc260_png: after IDAT": chunk(b"tEXt", PNG_TEXT, late=True),
    "tc260_exif: ASCII": lambda f: f.exif_jpeg(f.tiff({}, EXIF_LABEL)),
    "tc260_exif: JIS": comment(b"JIS\x00\x00\x00\x00\x00" + WRAPPED.encode("iso2022_jp")),
    "tc260_exif: UNICODE": comment(b"UNICODE\x00" + WRAPPED.encode("utf-16-be")),
    "tc260_exif: UNICODE, big": comment(b"UNICODE\x00" + WRAPPED.encode("utf-16-be"), ">"),
    "tc260_exif: UNICODE as UTF-8": comment(b"UNICODE\x00" + WRAPPED.encode(), ">"),
    "tc260_exif: PNG eXIf": lambda f: f.png((b"eXIf", f.tiff({}, EXIF_LABEL))),
    "tc260_exif: WebP": lambda f: f.webp((b"EXIF", b"Exif\x00\x00" + f.tiff({}, EXIF_LABEL))),
    "tc260_jpeg: APP11": lambda f: f.jpeg((0xEB, b"AIGC" + JSON.encode())),
    "tc260_jpeg: comment": lambda f: f.jpeg((0xFE, b"AIGC" + JSON.encode())),
    "tc260_description: JPEG": lambda f: f.exif_jpeg(f.tiff({0x010E: WRAPPED.encode() + b"\x00"})),
    "tc260_description: HEIC": heic,
}


@pytest.mark.parametrize("name", LABELS)
def test_the_label_of_gb_45438_is_read_everywhere(files, name):
    found = read_provenance(LABELS[name](files))
    assert found.declared == "ai_generated"
    (label,) = found.findings
    assert label.form == name.partition(":")[0]
    assert label.fields == LABEL
    assert "at byte" in label.where or "TIFF" in label.where
    assert ("after IDAT" in label.where) == ("after IDAT" in name)


VALUES = {
    **dict.fromkeys(("1", 1, "AIGC"), "ai_generated"),
    **dict.fromkeys(("2", 2, "7", None), "ai_possible"),
    **dict.fromkeys(("3", 3), "ai_suspected"),
    "0": "none",
}


@pytest.mark.parametrize(("value", "declared"), VALUES.items())
def test_values_of_the_label(files, value, declared):
    text = json.dumps({"AIGC": {"Label": value, "ContentProducer": "maker"}})
    found = read_provenance(files.png((b"tEXt", b"AIGC\x00" + text.encode())))
    assert found.declared == declared
    assert found.findings[0].fields["ContentProducer"] == "maker"
    unclear = str(value) not in ("1", "2", "3", "AIGC")
    assert ("label_unclear" in [note.code for note in found.notes]) == unclear


def test_the_variant_of_a_cloud_service(files):
    values = {"AIGC": {"ServiceProvider": "腾讯云", "ServiceUser": "u", "Time": "t"}}
    text = json.dumps(values, ensure_ascii=False).encode()
    (label,) = read_provenance(files.exif_jpeg(files.tiff({0x010E: text}))).findings
    assert (label.form, label.declares) == ("tc260_description", "ai_possible")
    assert label.fields == {"ServiceProvider": "腾讯云", "ServiceUser": "u"}


@pytest.mark.parametrize("text", [b'{"AIGC": {"Time": "now"}}', b"AIGC{Label"])
def test_without_a_known_field_there_is_no_label(files, text):
    described = files.exif_jpeg(files.tiff({0x010E: text + b"    "}))
    for data in (files.jpeg((0xEB, text)), described):
        assert read_provenance(data).findings == ()


CODES = dict.fromkeys(("digitalCapture", "humanEdits", "unheardOf"), "none") | {
    "trainedAlgorithmicMedia": "ai_generated",
    "compositeWithTrainedAlgorithmicMedia": "ai_edited",
    "compositeSynthetic": "ai_possible",
    "algorithmicMedia": "ai_possible",
}


@pytest.mark.parametrize("code", CODES)
def test_source_types_of_iptc(files, code):
    name = "Iptc4xmpExt:DigitalSourceType"
    for inside, attributes in (
        (f"<{name}>{IPTC}{code}</{name}>", ""),
        (f'<{name} rdf:resource="{IPTC}{code}"/>', ""),
        ("", f'{name}="digsrctype:{code}"'),
    ):
        found = read_provenance(files.xmp_jpeg(inside, attributes))
        assert found.declared == CODES[code]
        (finding,) = found.findings
        assert (finding.form, finding.fields) == ("iptc", {"digital_source_type": code})


def test_the_ai_system_of_iptc(files):
    inside = "<Iptc4xmpExt:AISystemUsed>Some System</Iptc4xmpExt:AISystemUsed>"
    (found,) = read_provenance(files.xmp_jpeg(inside)).findings
    assert (found.form, found.declares) == ("iptc", "ai_generated")
    assert found.fields["AISystemUsed"] == "Some System"


GRAPH = json.dumps(NODES).encode()
EDITING = json.dumps({**NODES, "5": {"class_type": "LoadImage"}}).encode()
DRAWING = json.dumps(DRAWN).encode()
SCALING = json.dumps({"nodes": [{"type": "ImageScale"}]}).encode()
EDIT_RUN = f"{PARAMETERS}, Denoising strength: 0.4".encode()
RECIPES = [
    ("png_parameters", "ai_generated", chunk(b"tEXt", b"parameters\0" + PARAMETERS.encode())),
    ("png_parameters", "ai_edited", chunk(b"iTXt", itxt(b"parameters", EDIT_RUN))),
    ("png_parameters", "ai_generated", lambda f: f.exif_jpeg(f.tiff({}, UNICODE_PARAMETERS))),
    ("png_parameters", "ai_generated", chunk(b"tEXt", b'invokeai_metadata\0{"seed": 1}')),
    ("comfyui", "ai_generated", chunk(b"tEXt", b"prompt\0" + GRAPH)),
    ("comfyui", "ai_edited", chunk(b"tEXt", b"prompt\0" + EDITING)),
    ("comfyui", "ai_generated", chunk(b"tEXt", b"workflow\0" + DRAWING, late=True)),
    ("comfyui", "ai_possible", chunk(b"tEXt", b"workflow\0" + SCALING)),
    ("comfyui", "ai_generated", lambda f: f.webp((b"EXIF", f.tiff({0x0110: b"prompt:" + GRAPH})))),
    ("comfyui", "ai_generated", lambda f: f.exif_jpeg(f.tiff({0x010E: b"Workflow: " + DRAWING}))),
]


@pytest.mark.parametrize(("form", "declares", "build"), RECIPES)
def test_recipes(files, form, declares, build):
    found = read_provenance(build(files))
    assert [(f.form, f.declares) for f in found.findings] == [(form, declares)]
    assert found.camera.model == ""
    if form == "png_parameters" and "program" not in found.findings[0].fields:
        assert found.findings[0].fields["Steps"] == "20"
        assert found.findings[0].fields["Sampler"] == "Euler a"


def test_what_looks_like_no_recipe_is_none(files):
    for text in (
        *("parameters\0ISO 100, f/8", "parameters\0Steps: many", "prompt\0a cup"),
        *('prompt\0{"a": 1}', 'workflow\0{"nodes": "x"}', "workflow\0[1, 2]"),
        "Comment\0Sampler: Akai MPC",
    ):
        assert read_provenance(files.png((b"tEXt", text.encode()))).findings == (), text
