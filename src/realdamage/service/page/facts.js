// Writes out what was found in one photo: verdict, reasons, provenance, comparison, earlier copies.

import { element, percent } from "./dom.js";
import { currentLanguage, say, sayPhrases } from "./language.js";

const REASONS_AT_ONCE = 4;
const LANGUAGE_NAMES = { en: "English", zh: "中文" };

/** A badge with a sign and a word, because color alone is not enough. short: use the short word. */
export function badge(outcome, short = false) {
  return element("span", { class: `badge ${outcome}` }, say(`${short ? "short" : "outcome"}_${outcome}`));
}

/** Everything about a photo, as a list of nodes. */
export function photoFacts(photo, thresholds) {
  if (photo.error) {
    return [element("p", { class: "verdict" }, badge("error")), element("p", { class: "problem" }, unreadable(photo))];
  }
  return [
    ...verdict(photo.verdict, thresholds),
    ...provenance(photo.provenance),
    ...comparisons(photo.comparisons),
    ...duplicates(photo),
  ];
}

// Why a photo could not be read; the service's English message begins with the photo's name.
function unreadable({ name, error, error_phrases: phrases }) {
  const said = sayPhrases(phrases);
  return said === null ? element("span", { lang: "en" }, error) : element("span", {}, `${name}：${said}`);
}

/** The reasons as a list. A sentence without a translation is shown in English. */
export function reasonList(reasons) {
  const line = ({ code, sentence, phrases }) => element("li", { title: code }, spoken(sentence, phrases));
  return element("ul", { class: "reasons" }, reasons.map(line));
}

// A sentence of the service, translated where there is a translation.
function spoken(sentence, phrases) {
  const said = sayPhrases(phrases);
  return said === null ? element("span", { lang: "en" }, sentence) : element("span", {}, said);
}

function verdict(found, thresholds) {
  const probability =
    found.probability === null ? say("no_probability") : say("probability", { probability: percent(found.probability) });
  const score = found.score.toFixed(2);
  const words = thresholds
    ? say("band", { score, real: thresholds.real.toFixed(2), synthetic: thresholds.synthetic.toFixed(2) })
    : say("no_band", { score });
  return [
    element("p", { class: "verdict" }, badge(found.outcome), element("span", {}, probability)),
    thresholds && band(found.score, thresholds),
    element("p", { class: "quiet small" }, words),
    element("h3", {}, say("reasons")),
    found.reasons.length ? reasonList(found.reasons) : element("p", {}, say("no_reasons")),
  ];
}

// The scale shows a little more than the thresholds; a score beyond it sticks to its end.
function band(score, { real, synthetic }) {
  const margin = Math.max(2, (synthetic - real) * 0.75);
  const [low, high] = [real - margin, synthetic + margin];
  const at = (value) => Math.min(100, Math.max(0, (100 * (value - low)) / (high - low)));
  const zones = [
    ["real", at(real)],
    ["review", at(synthetic) - at(real)],
    ["synthetic", 100 - at(synthetic)],
  ].map(([name, share]) => {
    const zone = element("span", { class: `zone-${name}` }, say(`short_${name}`));
    zone.style.width = `${share}%`;
    return zone;
  });
  const marker = element("span", { class: "marker" });
  marker.style.left = `${Math.min(99, Math.max(1, at(score)))}%`;
  const label = say("band_label", { score: score.toFixed(2) });
  return element("div", { class: "band", role: "img", "aria-label": label }, zones, marker);
}

function provenance(found) {
  const strong = found.declared === "none" ? "" : "declared";
  const notes = found.notes.filter(({ code }) => code !== "absence_proves_nothing");
  return [
    element("h3", {}, say("provenance")),
    element("p", { class: strong }, say(`declared_${found.declared}`)),
    found.declared === "none" && element("p", { class: "quiet small" }, say("absence")),
    found.findings.length > 0 && element("ul", { class: "findings" }, found.findings.map(finding)),
    notes.length > 0 && reasonList(notes),
    camera(found.camera),
  ];
}

function finding({ form, where, sentence, phrases, fields }) {
  const read = Object.entries(fields);
  return element(
    "li",
    {},
    spoken(sentence, phrases),
    element("div", { class: "quiet small" }, say("found_at", { form, where })),
    read.length > 0 && facts(read),
  );
}

function camera(found) {
  const made = [found.make, found.model].filter(Boolean).join(" ");
  const rows = [[say("camera_facts"), made || say("camera_none")]];
  if (found.taken) rows.push([say("taken"), found.taken]);
  if (found.software) rows.push([say("software"), found.software]);
  if (made || found.gps) rows.push([say("position"), say(found.gps ? "position_there" : "position_absent")]);
  if (found.thumbnail !== "none") rows.push([say("thumbnail"), say(`thumbnail_${found.thumbnail}`)]);
  return facts(rows);
}

function facts(rows) {
  return element("dl", { class: "rows" }, rows.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]).flat());
}

function comparisons(found) {
  const title = element("h3", {}, say("comparison"));
  if (found.length === 0) return [title, element("p", { class: "quiet" }, say("no_comparison"))];
  return [title, ...found.map(comparison)];
}

function comparison(found) {
  const numbers = {
    overlap: percent(found.overlap),
    changed: percent(found.changed),
    count: found.changes.length,
    inliers: found.inliers,
  };
  const shown = found.url && element("img", { src: found.url, alt: found.name, loading: "lazy" });
  return element(
    "div",
    { class: "compared" },
    shown,
    element(
      "div",
      {},
      element("div", { class: "quiet small" }, say("comparison_with", { name: found.name })),
      element("strong", {}, say(`compared_${found.outcome}`)),
      found.outcome !== "unrelated" && element("p", { class: "small" }, say("compared_numbers", numbers)),
      reasonList(found.reasons),
    ),
  );
}

function duplicates(photo) {
  if (photo.duplicates.length === 0) return [];
  const line = (copy) => {
    const what = { photo: copy.photo, of: copy.of, distance: copy.distance };
    const where = copy.claim_id ? `: ${say("duplicate_claim", { claim: copy.claim_id, seen: copy.seen })}` : "";
    return element("li", {}, say(copy.exact ? "duplicate_exact" : "duplicate_near", what) + where);
  };
  return [element("h3", {}, say("duplicates")), element("ul", { class: "reasons" }, photo.duplicates.map(line))];
}

/** The claim's recommendation with its reasons, and the text for the buyer. onNew: called for another claim. */
export function claimSummary(claim, onNew) {
  const value = claim.recommendation;
  const rest = claim.reasons.slice(REASONS_AT_ONCE); // the most serious come first
  return [
    element(
      "div",
      { class: "title" },
      element("span", { class: "quiet" }, say("claim_id", { id: claim.id })),
      element("button", { type: "button", id: "new-claim", onclick: onNew }, say("new_claim")),
    ),
    element("p", { class: `recommendation ${value}` }, element("span", { class: "quiet" }, say("recommendation")), element("strong", {}, say(`recommend_${value}`))),
    reasonList(claim.reasons.slice(0, REASONS_AT_ONCE)),
    rest.length > 0 && element("details", { class: "more" }, element("summary", {}, say("more", { count: rest.length })), reasonList(rest)),
    claim.listingErrors.map((listing) => element("p", { class: "problem" }, unreadable(listing))),
    element("p", { class: "quiet small" }, say("person_decides")),
    buyerText(claim.buyerTexts),
  ].flat();
}

function buyerText(texts) {
  const text = element("p", { class: "letter", tabindex: 0 });
  const language = element(
    "select",
    { "aria-label": say("buyer_language"), onchange: () => show(language.value) },
    Object.keys(texts).map((code) => element("option", { value: code }, LANGUAGE_NAMES[code] ?? code)),
  );
  const status = element("span", { class: "quiet small", role: "status" });
  const show = (code) => {
    text.textContent = texts[code];
    text.lang = code;
    status.textContent = "";
  };
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      status.textContent = say("copied");
    } catch {
      getSelection().selectAllChildren(text); // no clipboard without HTTPS
      status.textContent = say("copy_failed");
    }
  };
  language.value = currentLanguage() in texts ? currentLanguage() : Object.keys(texts)[0];
  show(language.value);
  return element(
    "details",
    { class: "buyer" },
    element("summary", {}, say("buyer_title")),
    element("p", { class: "quiet small" }, say("buyer_lead")),
    text,
    element("p", { class: "actions" }, language, element("button", { type: "button", id: "copy", onclick: copy }, say("copy")), status),
  );
}
