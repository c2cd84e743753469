// Colours the maps of the service (grey PNG, 0..255 for 0..1) so that they can lie over a photo.

const HEAT = { from: [255, 221, 0], to: [220, 0, 40], start: 0 }; // the colours of `realdamage predict --heatmap`
const CHANGE = { from: [0, 150, 255], to: [150, 0, 230], start: 0.4 }; // 0.5 is the noise that two saves may differ by

export const PALETTES = { heat: HEAT, change: CHANGE };

/** Draws the base64 PNG into `canvas`, one canvas pixel for each of its own: transparent where it is 0. */
export async function drawMap(canvas, base64, palette) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const value = Math.max(0, (pixels.data[at] / 255 - palette.start) / (1 - palette.start));
    for (let channel = 0; channel < 3; channel += 1) {
      pixels.data[at + channel] = palette.from[channel] + value * (palette.to[channel] - palette.from[channel]);
    }
    pixels.data[at + 3] = 255 * value;
  }
  pen.putImageData(pixels, 0, 0);
}
