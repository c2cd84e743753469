// A kept claim as a case: the decision of a person, links to both sides, what they said, and the record.

import { element } from "./dom.js";
import { reasonList } from "./facts.js";
import { say } from "./language.js";
import { money, repeats, when } from "./queue.js";

const ACTIONS = ["refund", "part", "require_return", "ask", "refuse"];
export const ACTION_KEYS = { r: "refund", p: "part", t: "require_return", a: "ask", f: "refuse" };
const UNDECIDED = ["open", "waiting_buyer", "waiting_merchant", "appealed"];
const draft = { claim: "", action: "", reason: "", amount: "" };

/** Remembers the action, as its button does; the reason is written next. */
export function choose(action, redraw) {
  draft.action = action;
  redraw();
  document.getElementById("reason")?.focus();
}

/**
 * The card on which a case is decided, as nodes. act(path, body): sends a change, with the case's version, and shows the
 * answer; link(side): makes a link and resolves to its address; redraw: draws the card again.
 */
export function caseCard(found, { act, link, redraw }) {
  const { case: one, decisions, rules } = found;
  if (draft.claim !== one.claim_id) Object.assign(draft, { claim: one.claim_id, action: "", reason: "", amount: "" });
  const waiting = decisions.find(({ waits }) => waits);
  const undoable = decisions.findLast(({ can_undo: can, undone }) => can && !undone);
  return [
    element("div", { class: "title" }, element("h2", {}, say("case_of", { id: one.claim_id })), element("strong", {}, say(`state_${one.state}`))),
    element("p", {}, [one.product, one.order_id, one.merchant, money(one)].filter(Boolean).join(" · ")),
    element("p", { class: "quiet small" }, say("due", { when: when(one.deadline) })),
    repeats(one.repeats) && element("p", { class: "small" }, `${repeats(one.repeats)} ${say("repeats_note")}`),
    decisions.filter(({ undone }) => !undone).map((decision) => element("p", { class: "decided" }, decisionWords(decision))),
    changing(one, waiting, undoable, rules, act, redraw),
    rules.is_local && element("p", { class: "quiet small" }, say(rules.second_person.length > 0 ? "local_second" : "local_note")),
    UNDECIDED.includes(one.state) && links(one, link),
  ].flat(2);
}

function changing(one, waiting, undoable, rules, act, redraw) {
  const undecided = UNDECIDED.includes(one.state) && !waiting;
  const reason = element("textarea", { id: "reason", rows: 2, maxlength: 2000, required: true, oninput: () => keepDraft() });
  const amount = element("input", { id: "part", inputmode: "decimal", maxlength: 13, oninput: () => keepDraft() });
  reason.value = draft.reason;
  amount.value = draft.amount;
  const keepDraft = () => {
    draft.reason = reason.value;
    draft.amount = amount.value;
    send.disabled = reason.value.trim().length < 3 || (undecided && !draft.action);
  };
  const run = async (path, extra = {}) => {
    await act(path, { version: one.version, reason: reason.value.trim(), ...extra });
  };
  const finish = async () => {
    if (undecided) await run("decisions", { action: draft.action, ...(draft.action === "part" ? { amount: amount.value.trim() } : {}) });
    else if (waiting) await run(`decisions/${waiting.number}/confirm`);
    else if (one.state === "decided" && undoable) await run(`decisions/${undoable.number}/undo`);
    else await run("close");
  };
  const label = undecided ? "case_decide" : waiting ? "case_confirm" : undoable ? "case_undo" : "case_close";
  const send = element("button", { type: "submit", class: "main", id: "send-decision" }, say(label));
  if (one.state === "closed") return [];
  const second = (side) => element("button", { type: "button", onclick: () => form.reportValidity() && run("appeal", { side }) }, say(`appeal_${side}`));
  const others = [
    waiting && element("button", { type: "button", onclick: () => form.reportValidity() && run(`decisions/${waiting.number}/undo`) }, say("case_undo")),
    !waiting && undecided && undoable && element("button", { type: "button", onclick: () => form.reportValidity() && run(`decisions/${undoable.number}/undo`) }, say("case_undo")),
    one.state === "decided" && !undoable && [second("buyer"), second("merchant")],
  ].flat();
  const form = element(
    "form",
    {
      id: "decision-form",
      onsubmit: (event) => {
        event.preventDefault();
        finish();
      },
      onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && !send.disabled && form.requestSubmit(),
    },
    undecided && actions(rules, redraw),
    undecided && draft.action === "part" && element("label", { class: "field" }, element("span", {}, say("case_part")), amount),
    element("label", { class: "field" }, element("span", {}, say("case_reason")), reason),
    element("div", { class: "actions" }, send, others),
    element("p", { id: "case-problem", class: "problem", role: "alert", hidden: true }),
  );
  keepDraft();
  return [form];
}

function actions(rules, redraw) {
  const keys = Object.fromEntries(Object.entries(ACTION_KEYS).map(([key, action]) => [action, key]));
  return element(
    "div",
    { class: "choices", role: "group", "aria-label": say("case_decision") },
    ACTIONS.map((action) =>
      element(
        "button",
        {
          type: "button",
          class: "decide",
          "data-action": action,
          "aria-pressed": String(draft.action === action),
          "aria-keyshortcuts": keys[action],
          title: rules.second_person.includes(action) ? say("needs_second") : null,
          onclick: () => choose(action, redraw),
        },
        say(`action_${action}`),
        element("kbd", { "aria-hidden": "true" }, keys[action]),
      ),
    ),
  );
}

function decisionWords(decision) {
  const what = decision.action === "part" ? `${say("action_part")} ${decision.amount}` : say(`action_${decision.action}`);
  const who = [decision.by, decision.confirmed_by].filter(Boolean).join(" + ");
  const state = decision.waits ? say("waits_second") : decision.is_final ? say("is_final") : say("final_at", { when: when(decision.final_at) });
  return `${what} (${who}): ${decision.reason} — ${state}`;
}

function links(one, link) {
  const place = element("p", { class: "small", role: "status" });
  const button = (side) =>
    element(
      "button",
      {
        type: "button",
        onclick: async () => {
          const address = await link(side);
          place.replaceChildren(say("link_made"), " ", element("input", { class: "address", readonly: true, value: address, "aria-label": say("link_made") }));
          navigator.clipboard?.writeText(address).catch(() => {});
        },
      },
      say(`link_${side}`),
    );
  return [element("p", { class: "actions" }, button("buyer"), button("merchant")), place];
}

/** What both sides said, side by side, and the record of all changes. picture(path): resolves to an address. */
export function recordCard(found, { picture, statement }) {
  const side = (name) => {
    const said = found.statements.filter((one) => one.side === name);
    return element(
      "div",
      {},
      element("h3", {}, say(`said_${name}`)),
      said.length === 0 && element("p", { class: "quiet" }, say("said_nothing")),
      said.map((one) => statementOf(one, picture, statement)),
    );
  };
  return [
    element("h2", {}, say("both_sides")),
    element("div", { class: "sides" }, side("merchant"), side("buyer")),
    element(
      "details",
      {},
      element("summary", {}, say("record", { count: found.events.length })),
      element("ol", { class: "small" }, found.events.map((one) => element("li", {}, `${one.time.slice(0, 19).replace("T", " ")} ${one.event} ${one.payload.by ?? ""}`))),
    ),
  ];
}

// What is known of a video: whether it was sealed before, and what its file says.
function videoFacts(video) {
  const seals = video.sealed.map(({ time, order }) =>
    element("p", { class: "sealed" }, say("video_sealed", { name: video.name, order, when: when(Date.parse(time) / 1000) })),
  );
  const size = { width: video.width, height: video.height, codec: video.codec, seconds: video.seconds?.toFixed(1) ?? "?" };
  return [
    ...(seals.length > 0 ? seals : [element("p", { class: "small" }, say("video_unsealed", { name: video.name }))]),
    element("p", { class: "small quiet" }, `${say("video_facts", size)}${video.varies ? say("video_varies") : ""}`),
    element("p", { class: "small quiet digest" }, `SHA-256 ${video.sha256}`),
  ];
}

function statementOf(one, picture, statement) {
  const box = element("div", { class: "statement" }, element("p", { class: "quiet small" }, when(one.received)), element("p", { class: "letter" }, one.text || "—"));
  statement(one.folder).then((values) => {
    const { recapture } = values;
    for (const video of values.videos) box.append(...videoFacts(video));
    if (recapture) {
      box.append(
        element("p", { class: "small" }, say("recapture", { frames: recapture.frames, product: say(`compared_${recapture.product}`) })),
        element("p", { class: "small" }, recapture.nonce_matches && recapture.in_order && recapture.distinct ? say("recapture_fits") : say("recapture_not")),
        element("p", { class: "small quiet" }, say("recapture_limits")),
      );
    }
    const shown = values.photos.map((photo, index) => [photo, `statements/${one.folder}/photo-${String(index + 1).padStart(2, "0")}.jpg`]);
    const pictures = element("div", { class: "thumbs" });
    for (const [photo, path] of shown.filter(([{ error }]) => !error)) {
      const image = element("img", { alt: photo.name });
      picture(path).then((url) => image.setAttribute("src", url));
      pictures.append(image);
    }
    box.append(pictures, values.findings.length > 0 ? reasonList(values.findings) : "");
  });
  return box;
}
