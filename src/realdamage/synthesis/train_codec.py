"""Makes the house codecs: trains a small autoencoder on photos of the studio, or of a manifest, and writes one file.

python -m realdamage.synthesis.train_codec house
python -m realdamage.synthesis.train_codec house_nearest --photos FOLDER --splits data/splits.csv
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

from realdamage.core.decode import decode
from realdamage.data.manifest import read_manifest
from realdamage.data.splits import with_split_table
from realdamage.errors import RealDamageError, SynthesisError
from realdamage.synthesis.house_codec import (
    HOUSE_CODECS,
    HouseCodec,
    HouseCodecSpec,
    save_house_codec,
)
from realdamage.synthesis.studio import Studio

# Four ways to double a side, three strides, three bottlenecks: no two of them leave the same trace.
SPECS = {
    "house": HouseCodecSpec(),
    "house_nearest": HouseCodecSpec(stages=3, latent=8, width=32, upsample="nearest"),
    "house_bilinear": HouseCodecSpec(
        stages=2, latent=3, width=24, upsample="bilinear", bottleneck="noisy", shortcut=True
    ),
    "house_transposed": HouseCodecSpec(
        stages=3, latent=12, width=32, upsample="transposed", bottleneck="quantised", shortcut=True
    ),
    "house_shuffle": HouseCodecSpec(
        stages=4, latent=32, width=32, upsample="pixel_shuffle", shortcut=True
    ),
}


def crops(photos: list[np.ndarray], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random photos: float32 [count, 3, side, side] in −1..1."""
    found = []
    for index in rng.integers(len(photos), size=count):
        rgb = photos[index]
        y, x = (int(rng.integers(length - side + 1)) for length in rgb.shape[:2])
        found.append(rgb[y : y + side, x : x + side])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels and on their means over 8 × 8, plus L1 on horizontal and vertical differences, which keeps edges
    where L1 alone would blur them."""
    loss = F.l1_loss(output, target) + F.l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(target, 8))
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def train(
    photos: list[np.ndarray],
    spec: HouseCodecSpec,
    *,
    steps: int,
    seed: int,
    side: int = 64,
    batch: int = 16,
) -> HouseCodec:
    """Trains a codec; prints the mean loss every tenth of the way."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    codec = HouseCodec(spec).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    losses: list[float] = []
    started = time.monotonic()
    for step in range(1, steps + 1):
        target = crops(photos, batch, side, rng).contiguous(memory_format=torch.channels_last)
        loss = reconstruction_loss(codec(target), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % max(1, steps // 10) == 0:
            print(
                f"step {step}/{steps}  loss {np.mean(losses):.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
            losses.clear()
    return codec.eval()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="train_codec", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("codec", choices=sorted(SPECS), help="which architecture")
    parser.add_argument(
        "--output", type=Path, help="safetensors file to write; default: the one inside the package"
    )
    parser.add_argument(
        "--photos", type=Path, help="folder with metadata.csv; default: photos of the studio"
    )
    parser.add_argument(
        "--splits", type=Path, help="split table (CSV): only its train photos are used"
    )
    parser.add_argument("--count", type=int, default=400, help="how many photos to train on")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16, help="crops of 64 px a step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    output = options.output or Path(__file__).parent / HOUSE_CODECS[options.codec]
    try:
        photos = _photos(options.photos, options.splits, options.count, options.seed)
        codec = train(
            photos,
            SPECS[options.codec],
            steps=options.steps,
            seed=options.seed,
            batch=options.batch,
        )
        save_house_codec(codec, output)
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
    return 0


def _photos(folder: Path | None, splits: Path | None, count: int, seed: int) -> list[np.ndarray]:
    if folder is None:
        # Seeds far from those of any recipe, so that no photo made later was seen by the codec.
        return [
            Studio().render(10_000_000 + seed + i, 10_000_000 + seed + i).rgb for i in range(count)
        ]
    manifest = read_manifest(folder)
    if splits:
        manifest = with_split_table(manifest, splits)
    table = manifest.table
    # A locked photo teaches nobody, a codec no more than a detector.
    usable = table.loc[
        (table["label"] == "real") & table["split"].isin(("train", "")), "file_name"
    ].to_numpy()
    if not len(usable):
        raise SynthesisError(f"--photos {folder}: no real photo of the train split in there")
    chosen = np.random.default_rng(seed).permutation(len(usable))[:count]
    return [decode(manifest.path(usable[index])) for index in chosen]


if __name__ == "__main__":
    sys.exit(main())
