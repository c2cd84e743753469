"""Videos: what their files say, their frames, hostile files, and seals."""

import dataclasses
import io
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realdamage.claims import ClaimPolicy, EvidenceLog
from realdamage.claims.videos import MAX_FRAMES, check_seal, judge_videos, read_video, seal
from realdamage.commands.cli import main
from realdamage.errors import PhotoError, UsageError

av = pytest.importorskip("av")
RGB = NDArray[np.uint8]
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
 </rdf:RDF></x:xmpmeta>"""


@pytest.fixture(scope="module")
def made(photo_factory):
    """`made(form="mp4", scenes=1, tags={}, **options)`: a video of still scenes, blurred ones too,
    160x120, as motion JPEG with ten frames a second."""

    def make(form="mp4", scenes=1, tags=None, **options):
        frames = []
        for number in range(scenes):
            sharp = Image.fromarray(photo_factory(120, 160, number))
            blurred = sharp.resize((20, 15)).resize((160, 120))
            frames += [blurred, sharp, blurred, blurred]
        data = io.BytesIO()
        with av.open(data, "w", format=form, options=options) as output:
            stream = output.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
            stream.bit_rate = 10_000_000
            output.metadata.update(tags or {})
            for frame in frames:
                output.mux(stream.encode(av.VideoFrame.from_image(frame)))
            output.mux(stream.encode())
        return data.getvalue()

    return make


@pytest.fixture(scope="module")
def scene(made):
    return made()


def with_box(data, kind, content):
    """The MP4 with one more box at its end."""
    return data + struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize(
    ("form", "container"),
    [("mp4", "MP4"), ("mov", "MOV"), ("matroska", "Matroska"), ("avi", "AVI")],
)
def test_the_sharp_frame_of_each_scene_is_kept(made, form, container):
    data = made(form, scenes=3)
    facts = read_video(data, "a b")
    assert (facts.container, facts.codec, facts.byte_count) == (container, "mjpeg", len(data))
    assert (facts.width, facts.height, facts.varies) == (160, 120, False)
    assert facts.seconds == pytest.approx(1.2, abs=0.2)
    assert facts.declared == "none"
    assert len(facts.frames) == 3
    times = sorted(name.removeprefix("a b @ ") for name, _ in facts.frames)
    assert times == ["0.1 s", "0.5 s", "0.9 s"]
    assert json.loads(json.dumps(facts.to_dict()))["frames"] == [name for name, _ in facts.frames]


def test_a_long_video_is_looked_at_in_places(made, monkeypatch):
    video = made(scenes=12)
    assert len(read_video(video).frames) == MAX_FRAMES
    monkeypatch.setattr("realdamage.claims.videos._MAX_DECODED", 3)
    assert 1 <= len(read_video(video).frames) <= 3


def test_labels_in_tags_are_read(made):
    label = json.dumps({"Label": "1", "ContentProducer": "maker"})
    own = read_video(made(tags={"AIGC": label}, movflags="use_metadata_tags"))
    assert own.declared == "ai_generated"
    assert own.declarations[0].form == "tc260_video"
    assert own.declarations[0].fields["ContentProducer"] == "maker"
    named = read_video(made("matroska", tags={"COMMENT": "made with Midjourney"}))
    assert named.declarations[0].fields["generator"] == "Midjourney"


def test_xmp_and_credentials_are_read(scene, signing):
    uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    signed = signing.sign("trainedAlgorithmicMedia", data=scene, mime="video/mp4")
    for data, form in (
        (with_box(scene, b"uuid", uuid + XMP), "iptc"),
        (with_box(scene, b"XMP_", XMP), "iptc"),
        (signed, "c2pa"),
    ):
        facts = read_video(data)
        assert (facts.declared, facts.declarations[0].form) == ("ai_generated", form)
    changed = bytearray(signed)
    changed[-40] ^= 1
    assert read_video(bytes(changed)).declared == "none"


def blank(data):
    """The MP4 with zeros for its pictures."""
    start, end = data.index(b"mdat") + 4, data.rindex(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def sound():
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 44100
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return data.getvalue()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _: b"#EXTM3U\nfile:///etc/passwd\n", "not_a_video"),
        (lambda _: sound(), "video_without_frames"),
        (lambda data: data[: len(data) // 2], "video_damaged"),
        (lambda data: data.replace(b"mp4v", b"encv"), "video_encrypted"),
        (blank, "video_without_frames"),
    ],
    ids=["playlist", "sound", "half", "encrypted", "spoilt"],
)
def test_a_file_that_cannot_be_looked_at_is_an_error(scene, spoil, code):
    with pytest.raises(PhotoError) as caught:
        read_video(spoil(scene), "clip.mp4")
    assert caught.value.code == code
    assert caught.value.phrases[0].template == code


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes(made):
    data = made(scenes=3, movflags="frag_keyframe+empty_moov")
    facts = read_video(data[: len(data) - 6000])
    assert [note.code for note in facts.notes] == ["video_cut_off"]
    assert facts.frames


def test_ten_gigabytes_are_refused_unread(tmp_path):
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # takes no space
    for read in (read_video, lambda given: check_seal(given, EvidenceLog(tmp_path / "log"))):
        with pytest.raises(PhotoError) as caught:
            read(path)
        assert caught.value.code == "video_too_large"
    with pytest.raises(PhotoError) as caught:
        read_video(tmp_path / "none.mp4")
    assert caught.value.code == "missing_file"


def found_in(outcome, video, photos=()):
    """The findings about a video, under rules that would escalate."""
    rules = dataclasses.replace(ClaimPolicy().rules, video_frames_synthetic="escalate")
    detector = SimpleNamespace(predict=lambda _: SimpleNamespace(outcome=outcome))
    facts = [read_video(video, "clip")]
    found = judge_videos(facts, detector, ClaimPolicy(rules=rules), photos)
    return {one.rule: one.recommends for one in found}


def test_pixels_of_frames_never_lead_beyond_review(made, scene, claim_photo):
    assert found_in("synthetic", scene) == {"video_frames_synthetic": "review"}
    label = made(tags={"comment": 'AIGC{"Label": "1"}'})
    assert found_in("real", label) == {"declared_ai_generated": "escalate"}
    frame, other = read_video(scene).frames[0][1], claim_photo(5, size=(160, 120))
    assert found_in("real", scene, [other]) == {"video_unlike_photos": "approve"}
    assert found_in("real", scene, [other, frame]) == {}


@pytest.fixture
def packed(scene, tmp_path):
    path = tmp_path / "packing.mp4"
    path.write_bytes(scene)
    return path


def test_a_sealed_video_is_found_again(packed, tmp_path):
    log = EvidenceLog(tmp_path / "log.jsonl")
    for order in ("  ", "a\nb"):
        with pytest.raises(UsageError) as caught:
            seal(packed, order, log)
        assert caught.value.code == "order"
    assert not log.path.exists()
    entry = seal(packed, "O-1", log)
    assert entry["payload"]["bytes"] == packed.stat().st_size
    head = log.head
    seal(packed, "O-2", log)
    report = check_seal(packed, log, "O-1", head)
    assert (report.entry, report.problems, len(report.proves)) == (entry, (), 2)
    assert check_seal(packed, log).entry == entry
    (problem,) = check_seal(packed, log, "O-3").problems
    assert "O-1, O-2" in problem
    packed.write_bytes(packed.read_bytes() + b"\0")
    other = check_seal(packed, log)
    assert (other.entry, len(other.problems)) == (None, 1)


def test_the_command_seals_and_checks(packed, tmp_path, capfd):
    log = EvidenceLog(tmp_path / "log.jsonl")
    words = ["seal", str(packed), "--log", str(log.path)]
    assert main(words) == 2
    assert main([*words, "--order", "O-1"]) == 0
    assert log.head in capfd.readouterr().out
    assert main([*words, "--check", "--order", "O-1"]) == 0
    assert main([*words, "--check", "--order", "O-2"]) == 1
    packed.write_text("no video")
    assert main([*words, "--order", "O-3"]) == 3
    assert len(log.verify().entries) == 1
