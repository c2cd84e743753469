// Shows one photo with what was found in it: heat map, changes, boxes; the listing photo next to it.

import { element, percent, shape } from "./dom.js";
import { say } from "./language.js";
import { drawMap, PALETTES } from "./maps.js";

// What a reviewer chose last holds for the next photo too. First the photo alone: an overlay leads the eye.
const settings = { overlay: "none", opacity: 65, boxes: false };
const view = { zoom: 1, x: 0, y: 0 };
const MOST_ZOOM = 8;

let shown = null;

/** Fills `place` with the photo and its controls. onStep: called with -1 or 1 for another photo; null when it is alone. */
export function showPhoto(place, photo, position, onStep) {
  const frame = element("div", { class: "frame" });
  const layer = element("div", { class: "layer", "data-testid": "layer" });
  const picture = element("img", { class: "photo", src: photo.url, alt: photo.name });
  const unseen = element("p", { class: "unseen-format", hidden: true }, say("cannot_show"));
  picture.addEventListener("error", () => {
    picture.hidden = true;
    unseen.hidden = false;
  });
  frame.append(picture, unseen, layer);
  shown = { photo, frame, layer, choices: choicesFor(photo) };
  sizeFrame(frame, photo, picture);
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
  const listing = photo.comparisons.find(({ url }) => url);
  const other = listing && element("div", { class: "pane" }, element("img", { class: "beside", src: listing.url, alt: listing.name }));
  const pair = element("div", { class: listing ? "pair two" : "pair" }, element("div", { class: "pane" }, frame), other);
  shown.pair = pair;
  movePair(pair);
  place.replaceChildren(
    element("div", { class: "title" }, element("h2", {}, photo.name), paging(position, onStep)),
    element(
      "figure",
      {},
      pair,
      element("figcaption", { class: "quiet small legend" }),
      listing && element("figcaption", { class: "quiet small" }, say("beside", { name: listing.name })),
    ),
    controls(),
  );
  draw();
}

/** Both photos at one zoom: larger or smaller by `factor`; 0 shows all again. */
export function zoomBy(factor) {
  if (!shown) return;
  view.zoom = factor === 0 ? 1 : Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
  if (view.zoom === 1) Object.assign(view, { x: 0, y: 0 });
  moveBoth(0, 0);
}

// x and y are shares of the pane: the same place in both photos.
function moveBoth(x, y) {
  const most = (view.zoom - 1) / 2;
  view.x = Math.min(most, Math.max(-most, view.x + x));
  view.y = Math.min(most, Math.max(-most, view.y + y));
  for (const pane of shown.pair.querySelectorAll(".pane")) {
    pane.firstChild.style.transform = `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.zoom})`;
  }
  const words = document.getElementById("zoom");
  if (words) words.textContent = `${Math.round(100 * view.zoom)}%`;
}

function movePair(pair) {
  let from = null;
  pair.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && view.zoom === 1 && event.deltaY > 0) return; // the page scrolls on
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
  }, { passive: false });
  pair.addEventListener("pointerdown", (event) => {
    if (view.zoom > 1) {
      from = [event.clientX, event.clientY];
      pair.setPointerCapture(event.pointerId);
    }
  });
  pair.addEventListener("pointermove", (event) => {
    if (!from) return;
    const { clientWidth, clientHeight } = pair.firstChild;
    moveBoth((event.clientX - from[0]) / clientWidth, (event.clientY - from[1]) / clientHeight);
    from = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) pair.addEventListener(end, () => (from = null));
}

function zoomButtons() {
  const button = (sign, key, factor) =>
    element("button", { type: "button", class: "plain", "aria-label": say(key), title: say(key), onclick: () => zoomBy(factor) }, sign);
  return element(
    "span",
    { class: "zoom" },
    button("−", "zoom_out", 0.8),
    element("output", { id: "zoom" }, "100%"),
    button("+", "zoom_in", 1.25),
    button("⤢", "zoom_all", 0),
  );
}

function paging(position, onStep) {
  const step = (sign, key, by) =>
    element("button", { type: "button", class: "plain", "aria-label": say(key), title: say(key), onclick: () => onStep(by) }, sign);
  const words = element("span", { class: "quiet" }, position);
  return element("span", { class: "paging" }, onStep ? [step("‹", "previous", -1), words, step("›", "next", 1)] : words);
}

/** Switches the overlay on or off: what was painted on the listing photo, else the heat map. */
export function toggleHeat() {
  if (!shown) return;
  choose(shown.layer.dataset.shows === "none" ? firstOverlay(shown.photo) : "none");
}

/** Switches the boxes on or off. */
export function toggleBoxes() {
  settings.boxes = !settings.boxes;
  draw();
}

/** Makes the overlay stronger or weaker by `step` percent. */
export function changeOpacity(step) {
  settings.opacity = Math.min(100, Math.max(0, settings.opacity + step));
  draw();
}

function choicesFor(photo) {
  const choices = [{ value: "none", label: say("overlay_none") }];
  if (photo.verdict?.heatmap) choices.push({ value: "heat", label: say("overlay_heat") });
  photo.comparisons.forEach((comparison, index) => {
    if (comparison.change_map) {
      choices.push({ value: `change${index}`, label: say("overlay_change", { name: comparison.name }), comparison });
    }
  });
  return choices;
}

// The verdict knows the upright size before the browser has decoded the photo: nothing moves when it has.
function sizeFrame(frame, photo, picture) {
  const known = photo.verdict ?? photo.comparisons[0];
  const take = (width, height) => frame.style.setProperty("--ratio", String(width / height));
  if (known) take(known.width, known.height);
  else picture.addEventListener("load", () => take(picture.naturalWidth, picture.naturalHeight));
}

function controls() {
  const overlay = element(
    "select",
    { id: "overlay", onchange: (event) => choose(event.target.value) },
    shown.choices.map(({ value, label }) => element("option", { value }, label)),
  );
  const opacity = element("input", { id: "opacity", type: "range", min: 0, max: 100, step: 1 });
  opacity.addEventListener("input", () => {
    settings.opacity = opacity.valueAsNumber;
    draw();
  });
  const boxes = element("input", { id: "boxes", type: "checkbox", onchange: toggleBoxes });
  return element(
    "div",
    { class: "controls" },
    element("label", { class: "field" }, element("span", {}, say("overlay")), overlay),
    element("label", { class: "field" }, element("span", {}, say("opacity")), opacity, element("output", { for: "opacity" })),
    element("label", { class: "tick" }, boxes, element("span", {}, say("boxes"))),
    zoomButtons(),
  );
}

function firstOverlay(photo) {
  const painted = photo.comparisons.findIndex(({ changes, change_map: map }) => map && changes.length > 0);
  return painted < 0 ? "heat" : `change${painted}`;
}

function choose(value) {
  settings.overlay = value;
  draw();
}

function draw() {
  if (!shown) return;
  const { photo, frame, layer, choices } = shown;
  const choice = choices.find(({ value }) => value === settings.overlay) ?? choices[0];
  document.getElementById("overlay").value = choice.value;
  const slider = document.getElementById("opacity");
  slider.value = String(settings.opacity);
  slider.disabled = choice.value === "none";
  slider.parentElement.querySelector("output").textContent = `${settings.opacity}%`;
  document.getElementById("boxes").checked = settings.boxes;
  layer.style.opacity = String(settings.opacity / 100);
  const family = choice.value.replace(/\d+$/, "");
  frame.closest("figure").querySelector(".legend").textContent = family === "none" ? "" : say(`legend_${family}`);
  if (layer.dataset.shows !== choice.value) {
    layer.dataset.shows = choice.value;
    layer.replaceChildren(...overlayFor(photo, choice, family));
  }
  frame.querySelector("svg")?.remove();
  if (settings.boxes) frame.append(boxesFor(photo, family === "heat" || family === "none" ? null : choice.comparison));
}

function overlayFor(photo, choice, family) {
  if (family === "heat") return [heatCanvas(photo.verdict)];
  if (family === "change") {
    const canvas = element("canvas", { class: "map" });
    drawMap(canvas, choice.comparison.change_map, PALETTES.change);
    return [canvas];
  }
  return [];
}

// The last row and column of patches may reach beyond the photo; the frame cuts them off.
function heatCanvas(verdict) {
  const canvas = element("canvas", { class: "map" });
  drawMap(canvas, verdict.heatmap, PALETTES.heat).then(() => {
    canvas.style.width = `${(100 * canvas.width * verdict.cell) / verdict.width}%`;
    canvas.style.height = `${(100 * canvas.height * verdict.cell) / verdict.height}%`;
  });
  return canvas;
}

function boxesFor(photo, comparison) {
  const { width, height } = comparison ?? photo.verdict ?? { width: 1, height: 1 };
  const marks = comparison
    ? comparison.changes.map(({ box, difference }) => [box, say("change", { difference: percent(difference) }), "changed"])
    : (photo.verdict?.regions ?? []).map(({ box, probability }) => [
        box,
        say("region", { probability: percent(probability) }),
        "region",
      ]);
  return shape(
    "svg",
    { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    marks.map(([[left, top, right, bottom], title, kind]) =>
      shape(
        "rect",
        { class: kind, x: left, y: top, width: right - left, height: bottom - top },
        shape("title", {}, title),
      ),
    ),
  );
}
