"""Videos: what their files say, their frames, hostile files, and seals."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realdamage.claims import ClaimPolicy, EvidenceLog
from realdamage.claims.videos import (
    MAX_BYTES,
    MAX_FRAMES,
    check_seal,
    judge_videos,
    read_video,
    seal,
)
from realdamage.commands.cli import main
from realdamage.errors import PhotoError, UsageError

av = pytest.importorskip("av")
RGB = NDArray[np.uint8]
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
 </rdf:RDF></x:xmpmeta>"""
Made = Callable[..., bytes]


@pytest.fixture(scope="module")
def made(photo_factory: Callable[[int, int, int], RGB]) -> Made:
    """`made(form="mp4", scenes=3, tags={}, **options)`: a video of still scenes, blurred ones too,
    160x120."""

    def make(
        form: str = "mp4", scenes: int = 3, tags: dict[str, str] | None = None, **options: str
    ) -> bytes:
        frames = []
        for scene in range(scenes):
            sharp = Image.fromarray(photo_factory(120, 160, scene))
            blurred = sharp.resize((20, 15)).resize((160, 120))
            frames += [blurred, sharp, blurred, blurred]
        return muxed(frames, form, tags or {}, options)

    return make


def muxed(
    frames: Sequence[Image.Image], form: str, tags: dict[str, str], options: dict[str, str]
) -> bytes:
    """Frames as motion JPEG, ten a second."""
    data = io.BytesIO()
    with av.open(data, "w", format=form, options=options) as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuvj420p"
        output.metadata.update(tags)
        for number, frame in enumerate(frames):
            picture = io.BytesIO()
            frame.save(picture, "JPEG", quality=92)
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            output.mux(packet)
    return data.getvalue()


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The MP4 with one more box at its end."""
    return data + struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize(
    ("form", "container"),
    [("mp4", "MP4"), ("mov", "MOV"), ("matroska", "Matroska"), ("avi", "AVI")],
)
def test_the_sharp_frame_of_each_scene_is_kept(made: Made, form: str, container: str) -> None:
    data = made(form)
    facts = read_video(data, "a b")
    assert (facts.container, facts.codec, facts.byte_count) == (container, "mjpeg", len(data))
    assert (facts.width, facts.height, facts.varies) == (160, 120, False)
    assert facts.seconds == pytest.approx(1.2, abs=0.2)
    assert facts.declared == "none"
    assert len(facts.frames) == 3
    times = sorted(name.removeprefix("a b @ ") for name, _ in facts.frames)
    assert times == ["0.1 s", "0.5 s", "0.9 s"]
    assert json.loads(json.dumps(facts.to_dict()))["frames"] == [name for name, _ in facts.frames]


def test_a_long_video_is_looked_at_in_places(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_video(made(scenes=40)).frames) == MAX_FRAMES
    monkeypatch.setattr("realdamage.claims.videos._MAX_DECODED", 3)
    assert 1 <= len(read_video(made(scenes=40)).frames) <= 3


def test_labels_in_tags_are_read(made: Made) -> None:
    label = json.dumps({"Label": "1", "ContentProducer": "maker"})
    own = read_video(made(tags={"AIGC": label}, movflags="use_metadata_tags"))
    assert own.declared == "ai_generated"
    assert own.declarations[0].form == "tc260_video"
    assert own.declarations[0].fields["ContentProducer"] == "maker"
    assert read_video(made(tags={"comment": f"AIGC{label}"})).declared == "ai_generated"
    named = read_video(made("matroska", tags={"COMMENT": "made with Midjourney"}))
    assert named.declarations[0].fields["generator"] == "Midjourney"


def test_xmp_and_credentials_are_read(made: Made, signing: Any) -> None:
    uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    for data in (with_box(made(), b"uuid", uuid + XMP), with_box(made(), b"XMP_", XMP)):
        facts = read_video(data)
        assert (facts.declared, facts.declarations[0].form) == ("ai_generated", "iptc")
    signed = signing.sign("trainedAlgorithmicMedia", data=made(), mime="video/mp4")
    facts = read_video(signed)
    assert (facts.declared, facts.declarations[0].form) == ("ai_generated", "c2pa")
    changed = bytearray(signed)
    changed[-40] ^= 1
    assert read_video(bytes(changed)).declared == "none"


def blank(data: bytes) -> bytes:
    """The MP4 with zeros for its pictures."""
    start, end = data.index(b"mdat") + 4, data.rindex(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def sound() -> bytes:
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
        (lambda _: b"", "not_a_video"),
        (lambda _: b"#EXTM3U\nfile:///etc/passwd\n", "not_a_video"),
        (lambda _: sound(), "video_without_frames"),
        (lambda data: data[: len(data) // 2], "video_damaged"),
        (lambda data: data.replace(b"mp4v", b"encv"), "video_encrypted"),
        (blank, "video_without_frames"),
    ],
    ids=["empty", "playlist", "sound", "half", "encrypted", "spoilt"],
)
def test_a_file_that_cannot_be_looked_at_is_an_error(
    made: Made, spoil: Callable[[bytes], bytes], code: str
) -> None:
    with pytest.raises(PhotoError) as caught:
        read_video(spoil(made()), "clip.mp4")
    assert caught.value.code == code
    assert caught.value.phrases[0].template == code
    assert str(caught.value).startswith("clip.mp4: ")


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes(made: Made) -> None:
    data = made(movflags="frag_keyframe+empty_moov")
    facts = read_video(data[: len(data) - 6000])
    assert [note.code for note in facts.notes] == ["video_cut_off"]
    assert facts.frames


def test_ten_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # takes no space
    for read in (read_video, lambda given: check_seal(given, EvidenceLog(tmp_path / "log"))):
        with pytest.raises(PhotoError) as caught:
            read(path)
        assert caught.value.code == "video_too_large"
    assert MAX_BYTES < 10 << 30
    with pytest.raises(PhotoError) as caught:
        read_video(tmp_path / "none.mp4")
    assert caught.value.code == "missing_file"


class Says:
    """A detector that says one thing of every photo."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    def predict(self, _: object) -> Says:
        return self


def found_in(outcome: str, video: bytes, photos: Sequence[bytes] = ()) -> dict[str, str]:
    """The findings about a video, under rules that would escalate."""
    policy = ClaimPolicy()
    rules = dataclasses.replace(policy.rules, video_frames_synthetic="escalate")
    policy = dataclasses.replace(policy, rules=rules)
    detector: Any = Says(outcome)
    found = judge_videos([read_video(video, "clip")], detector, policy, photos)
    return {one.rule: one.recommends for one in found}


def test_pixels_of_frames_never_lead_beyond_review(made: Made) -> None:
    assert found_in("synthetic", made()) == {"video_frames_synthetic": "review"}
    assert found_in("real", made()) == {}
    label = made(tags={"comment": 'AIGC{"Label": "1"}'})
    assert found_in("real", label) == {"declared_ai_generated": "escalate"}


def test_frames_are_compared_with_photos(made: Made, claim_photo: Callable[..., bytes]) -> None:
    video = made()
    frame = read_video(video).frames[0][1]
    other = claim_photo(5)
    assert found_in("real", video, [other]) == {"video_unlike_photos": "approve"}
    assert found_in("real", video, [other, frame]) == {}


@pytest.fixture
def packed(made: Made, tmp_path: Path) -> Path:
    path = tmp_path / "packing.mp4"
    path.write_bytes(made())
    return path


def test_a_sealed_video_is_found_again(packed: Path, tmp_path: Path) -> None:
    log = EvidenceLog(tmp_path / "log.jsonl")
    entry = seal(packed, "O-1", log)
    assert entry["payload"]["bytes"] == packed.stat().st_size
    head = log.head
    seal(packed, "O-2", log)
    report = check_seal(packed, log, "O-1", head)
    assert report.entry == entry
    assert report.problems == ()
    assert len(report.proves) == 2
    assert check_seal(packed, log).entry == entry
    code_of = check_seal(packed, log, "O-3")
    assert len(code_of.problems) == 1
    assert "O-1, O-2" in code_of.problems[0]
    packed.write_bytes(packed.read_bytes() + b"\0")
    assert check_seal(packed, log).entry is None
    assert len(check_seal(packed, log).problems) == 1


def test_the_command_seals_and_checks(
    packed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["seal", str(packed), "--log", str(tmp_path / "log.jsonl")]
    assert main(words) == 2
    assert main([*words, "--order", "O-1"]) == 0
    assert EvidenceLog(tmp_path / "log.jsonl").head in capfd.readouterr().out
    assert main([*words, "--check", "--order", "O-1"]) == 0
    assert main([*words, "--check", "--order", "O-2"]) == 1
    packed.write_text("no video")
    assert main([*words, "--order", "O-3"]) == 3
    assert len(EvidenceLog(tmp_path / "log.jsonl").verify().entries) == 1


@pytest.mark.parametrize("order", ["  ", "a\nb"])
def test_an_order_is_one_short_line(packed: Path, tmp_path: Path, order: str) -> None:
    with pytest.raises(UsageError) as caught:
        seal(packed, order, EvidenceLog(tmp_path / "log.jsonl"))
    assert caught.value.code == "order"
    assert not (tmp_path / "log.jsonl").exists()
