"""Makes the house codec: trains the small autoencoder on photos of the studio (or of a folder) and writes one file.

python -m realdamage.synthesis.train_codec --output src/realdamage/synthesis/house_codec.safetensors
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

from realdamage.inference.errors import RealDamageError, SynthesisError
from realdamage.inference.photo import decode
from realdamage.synthesis.house_codec import HouseCodec, HouseCodecSpec, save_house_codec
from realdamage.synthesis.studio import Studio


def crops(photos: list[np.ndarray], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random photos: float32 [count, 3, side, side] in −1..1."""
    found = []
    for index in rng.integers(len(photos), size=count):
        rgb = photos[index]
        y, x = (int(rng.integers(length - side + 1)) for length in rgb.shape[:2])
        found.append(rgb[y : y + side, x : x + side])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels plus L1 on horizontal and vertical differences, which keeps edges where L1 alone would blur them."""
    loss = F.l1_loss(output, target)
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def train(photos: list[np.ndarray], spec: HouseCodecSpec, *, steps: int, seed: int, side: int = 64) -> HouseCodec:
    """Trains a codec; prints the mean loss every tenth of the way."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    codec = HouseCodec(spec)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    losses: list[float] = []
    started = time.monotonic()
    for step in range(1, steps + 1):
        target = crops(photos, 16, side, rng)
        loss = reconstruction_loss(codec(target), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % max(1, steps // 10) == 0:
            print(f"step {step}/{steps}  loss {np.mean(losses):.4f}  {time.monotonic() - started:.0f} s", flush=True)
            losses.clear()
    return codec.eval()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train_codec", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--photos", type=Path, help="folder of photos; default: photos of the studio")
    parser.add_argument("--count", type=int, default=200, help="how many photos to train on")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stages", type=int, default=2, help="halvings of the side")
    parser.add_argument("--latent", type=int, default=4, help="channels of the bottleneck")
    parser.add_argument("--width", type=int, default=32, help="channels inside")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        photos = _photos(options.photos, options.count, options.seed)
        spec = HouseCodecSpec(options.stages, options.latent, options.width)
        codec = train(photos, spec, steps=options.steps, seed=options.seed)
        save_house_codec(codec, options.output)
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {options.output} ({options.output.stat().st_size / 1024:.0f} KiB)")
    return 0


def _photos(folder: Path | None, count: int, seed: int) -> list[np.ndarray]:
    if folder is None:
        # Seeds far from those of any recipe, so that no photo made later was seen by the codec.
        return [Studio().render(10_000_000 + seed + i, 10_000_000 + seed + i).rgb for i in range(count)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not paths:
        raise SynthesisError(f"--photos {folder}: no JPEG, PNG or WebP file in there")
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [decode(paths[index]) for index in chosen]


if __name__ == "__main__":
    sys.exit(main())
