"""Makes one of the package's own codecs: trains a small autoencoder and writes one file.

python tests/trials/train_codec.py house
python tests/trials/train_codec.py house_nearest --photos FOLDER --splits data/splits.csv
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realdamage import synthesis
from realdamage.core.decode import decode
from realdamage.data.manifest import read_manifest
from realdamage.data.splits import with_split_table
from realdamage.errors import RealDamageError, SynthesisError
from realdamage.synthesis.autoencoders import (
    HOUSE_CODECS,
    HouseCodec,
    HouseCodecSpec,
    save_house_codec,
)
from realdamage.synthesis.engine import RGB
from realdamage.synthesis.recipe import located

# Four ways to double a side, three strides, three bottlenecks: no two of them leave the same trace.
SPECS = {
    "house": HouseCodecSpec(),
    "house_nearest": HouseCodecSpec(stages=3, latent=8, width=32, upsample="nearest"),
    "house_bilinear": HouseCodecSpec(2, 3, 24, "bilinear", bottleneck="noisy", shortcut=True),
    "house_transposed": HouseCodecSpec(3, 12, 32, "transposed", "quantised", shortcut=True),
    "house_shuffle": HouseCodecSpec(4, 32, 32, "pixel_shuffle", shortcut=True),
}
_SIDE = 64  # of the crops, pixels
_PHOTOS = 400  # to learn from, at most


def train(photos: list[RGB], spec: HouseCodecSpec, steps: int, batch: int) -> HouseCodec:
    """Trains a codec on random crops; prints the mean loss every tenth of the way."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    codec = HouseCodec(spec).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    losses: list[float] = []
    started = time.monotonic()
    for step in range(1, steps + 1):
        target = _crops(photos, batch, rng).contiguous(memory_format=torch.channels_last)
        loss = _loss(codec(target), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % max(1, steps // 10) == 0:
            seconds = time.monotonic() - started
            print(f"step {step}/{steps}  loss {np.mean(losses):.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
    return codec.eval()


def _crops(photos: list[RGB], count: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random photos: float32 [count, 3, side, side] in −1..1."""
    found = []
    for index in rng.integers(len(photos), size=count):
        rgb = photos[index]
        y, x = (int(rng.integers(length - _SIDE + 1)) for length in rgb.shape[:2])
        found.append(rgb[y : y + _SIDE, x : x + _SIDE])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels, on their means over 8 × 8 and on differences, which keeps edges from
    blurring."""
    loss = F.l1_loss(output, target) + F.l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(target, 8))
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def _photos(folder: Path, splits: Path | None) -> list[RGB]:
    manifest = read_manifest(folder)
    if splits:
        manifest = with_split_table(manifest, splits)
    table = manifest.table
    # No codec may learn from photos that are kept for testing a detector.
    usable = (table["label"] == "real") & table["split"].isin(("train", ""))
    names = table.loc[usable, "file_name"].to_numpy()
    if not len(names):
        raise SynthesisError(f"--photos {folder}: no real photo of the train split")
    chosen = np.random.default_rng(0).permutation(len(names))[:_PHOTOS]
    return [decode(manifest.path(names[index])) for index in chosen]


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="train_codec", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("codec", choices=sorted(SPECS), help="which architecture")
    parser.add_argument("--output", type=Path, help="file to write; default: inside the package")
    parser.add_argument(
        "--photos",
        type=Path,
        default=located("data/sample"),
        help="folder with metadata.csv; default: data/sample of the repository",
    )
    parser.add_argument("--splits", type=Path, help="split table: only its train photos are used")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16, help=f"crops of {_SIDE} px a step")
    options = parser.parse_args(argv)
    output = options.output or Path(synthesis.__file__).parent / HOUSE_CODECS[options.codec]
    spec = SPECS[options.codec]
    try:
        photos = _photos(options.photos, options.splits)
        codec = train(photos, spec, options.steps, options.batch)
        save_house_codec(codec, output)
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
