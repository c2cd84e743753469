// Sends a reviewer's decision on a photo, and fetches earlier ones.

import { request } from "./api.js";
import { element } from "./dom.js";
import { currentLanguage, say } from "./language.js";
import { recall, remember } from "./memory.js";

const CHOICES = ["real", "synthetic", "unsure"];
const DAMAGES = ["", "cracked", "scratched", "stained", "dented", "torn", "holed", "creased", "crushed", "broken", "other"];

/** The form for a photo, as a list of nodes. onDecide: called with the choice; the fields are read by `decide`. */
export function decisionForm(photo, onDecide) {
  const draft = (photo.draft ??= { damage: "", note: "" });
  const button = (choice, index) =>
    element(
      "button",
      {
        type: "button",
        class: `decide ${choice}`,
        "data-decision": choice,
        "aria-pressed": String(photo.decision === choice),
        "aria-keyshortcuts": index + 1,
        onclick: () => onDecide(choice),
      },
      say(`decide_${choice}`),
      element("kbd", { "aria-hidden": "true" }, String(index + 1)),
    );
  const damage = element(
    "select",
    { id: "damage", onchange: () => (draft.damage = damage.value) },
    DAMAGES.map((name) => element("option", { value: name, selected: name === draft.damage }, say(`damage_${name}`))),
  );
  const note = element("input", { id: "note", maxlength: 2000, autocomplete: "off", oninput: () => (draft.note = note.value) });
  note.value = draft.note;
  const reviewer = element("input", {
    id: "reviewer",
    maxlength: 100,
    autocomplete: "name",
    oninput: () => remember("reviewer", reviewer.value),
  });
  reviewer.value = recall("reviewer");
  return [
    element("h2", {}, say("decision")),
    element(
      "div",
      { class: "fields" },
      element("label", { class: "field" }, element("span", {}, say("decide_damage")), damage),
      element("label", { class: "field" }, element("span", {}, say("decide_reviewer")), reviewer),
      element("label", { class: "field wide" }, element("span", {}, say("decide_note")), note),
    ),
    element("div", { class: "choices", role: "group", "aria-label": say("decision") }, CHOICES.map(button)),
    element("p", { id: "saved", class: "quiet small" }, savedWords(photo)),
  ];
}

/** Stores the decision and notes it on the photo. Rejects with a ServiceError. */
export async function decide(claim, photo, choice) {
  const body = {
    photo_sha256: photo.sha256,
    decision: choice,
    damage: photo.draft?.damage ?? "",
    note: photo.draft?.note ?? "",
    reviewer: recall("reviewer").trim(),
    file_name: photo.name,
    claim_id: claim.id,
    outcome: photo.verdict.outcome,
    score: photo.verdict.score,
    model_version: photo.verdict.model_version,
  };
  const { data } = await request("POST", "v1/reviews", { body });
  photo.decision = choice;
  photo.earlier.unshift(data);
}

/** Notes on each photo what was decided about it before, here or elsewhere. */
export async function recallDecisions(claim) {
  const query = new URLSearchParams(claim.photos.map(({ sha256 }) => ["photo_sha256", sha256]));
  const { data } = await request("GET", `v1/reviews?${query}`);
  for (const photo of claim.photos) photo.earlier = data.reviews.filter((review) => review.photo_sha256 === photo.sha256);
}

/** How many photos are decided each way (`counts`), and whether decisions outlive the service (`on_disk`). */
export async function countDecisions() {
  return (await request("GET", "v1/reviews?limit=1")).data;
}

function savedWords(photo) {
  const [last] = photo.earlier;
  if (!last) return "";
  const decision = say(`decide_${last.decision}`);
  if (photo.decision) return say("decided", { decision });
  const when = new Date(last.decided_at).toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "short" });
  const who = [last.reviewer, last.key_name && `(${last.key_name})`].filter(Boolean).join(" ");
  return say("decided_before", { decision, when, who: who || say("someone") });
}
