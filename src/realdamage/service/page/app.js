// The page itself: sends a claim, shows the answer photo by photo, and listens to the keyboard.

import { request, setKey } from "./api.js";
import { forgetClaim, readClaim } from "./claim.js";
import { countDecisions, decide, decisionForm, recallDecisions } from "./decision.js";
import { element } from "./dom.js";
import { badge, claimSummary, photoFacts } from "./facts.js";
import { createIntake } from "./intake.js";
import { applyLanguage, say, switchLanguage } from "./language.js";
import { changeOpacity, showPhoto, toggleBoxes, toggleHeat } from "./viewer.js";

const at = (id) => document.getElementById(id);
const intake = createIntake(at("intake"), updateJudge);
const page = { claim: null, index: 0, sending: null, model: null, counts: null, waiting: 0 };

const words = () => ({ unreachable: say("unreachable"), cancelled: say("cancelled"), refused: say("refused") });
const ask = (method, path, options = {}) => request(method, path, { words: words(), ...options });

// Sending a claim

async function judge() {
  const { photos, listings } = intake.files;
  const body = new FormData();
  for (const file of photos) body.append("photos", file, file.name);
  for (const file of listings) body.append("listings", file, file.name);
  if (at("claim-text").value.trim()) body.append("text", at("claim-text").value.trim());
  page.sending = new AbortController();
  showSending(0);
  try {
    const { data } = await withKey(() =>
      ask("POST", "v1/claims", { body, onProgress: showSending, signal: page.sending.signal }),
    );
    page.claim = readClaim(data, photos, listings);
    page.index = 0;
    showResults();
    announceResults();
    await recallDecisions(page.claim, words()).catch(() => {}); // the verdict is valid without them
    showStrip();
    showDeciding();
  } catch (error) {
    showProblem(error);
  } finally {
    page.sending = null;
    at("progress").hidden = at("cancel").hidden = true;
    at("progress-text").textContent = "";
    updateJudge();
  }
}

/** Runs a request; where a key is missing or wrong, asks for one and runs it again, and shows what needed it before. */
async function withKey(run) {
  for (let asked = false; ; asked = true) {
    try {
      const answer = await run();
      if (asked) showModel().then(showCounts);
      return answer;
    } catch (error) {
      if (error.status !== 401 || !(await askForKey(error.message))) throw error;
    }
  }
}

function askForKey(reason) {
  const dialog = at("key-dialog");
  at("key-reason").textContent = reason;
  at("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "use";
        if (given) setKey(at("key").value.trim());
        resolve(given);
      },
      { once: true },
    );
  });
}

function showSending(share) {
  at("problem").hidden = true;
  at("judge").disabled = true;
  at("progress").hidden = at("cancel").hidden = false;
  if (share < 1) at("progress").value = share;
  else at("progress").removeAttribute("value"); // being judged; nobody knows how long it takes
  const uploading = say("uploading", { share: `${Math.round(100 * share)}%` });
  at("progress-text").textContent = share < 1 ? uploading : say("judging");
}

function showProblem(error) {
  if (!(error.status >= 0)) console.error(error);
  at("problem").textContent = error.message;
  at("problem").hidden = false;
  if (error.retryAfter > 0) waitToRetry(error.retryAfter, error.message);
}

function waitToRetry(seconds, message) {
  page.waiting = seconds;
  updateJudge();
  at("problem").textContent = `${message} ${seconds > 0 ? say("retry_in", { seconds }) : ""}`;
  if (seconds > 0) setTimeout(() => waitToRetry(seconds - 1, message), 1000);
}

function updateJudge() {
  at("judge").disabled = intake.files.photos.length === 0 || page.sending !== null || page.waiting > 0;
}

// Showing the answer

function showResults() {
  const { claim } = page;
  at("intake").hidden = claim !== null;
  at("results").hidden = claim === null;
  if (claim === null) return;
  at("claim").replaceChildren(...claimSummary(claim, newClaim).filter(Boolean));
  showStrip();
  showCurrent();
}

function showStrip() {
  if (page.claim === null) return; // the claim was closed while the answer was on its way
  const { photos } = page.claim;
  at("strip").hidden = photos.length < 2;
  at("strip").replaceChildren(
    ...photos.map((photo, index) =>
      element(
        "button",
        { type: "button", "aria-current": index === page.index ? "true" : null, onclick: () => go(index) },
        element("img", { src: photo.url, alt: "" }),
        element("span", { class: "name" }, photo.name),
        badge(photo.outcome, true),
        photo.earlier.length > 0 && element("span", { class: "tick-mark", title: say(`decide_${photo.earlier[0].decision}`) }, "✓"),
      ),
    ),
  );
}

function showCurrent() {
  const { claim, index } = page;
  const photo = claim.photos[index];
  const count = claim.photos.length;
  const step = count > 1 ? (by) => go(page.index + by) : null;
  showPhoto(at("viewer"), photo, say("photo_of", { index: index + 1, count }), step);
  at("facts").replaceChildren(...photoFacts(photo, claim.thresholds).filter(Boolean));
  showDeciding();
}

function showDeciding() {
  if (page.claim === null) return;
  const photo = page.claim.photos[page.index];
  at("deciding").hidden = photo.error !== "";
  at("deciding").replaceChildren(...(photo.error ? [] : decisionForm(photo, takeDecision)));
}

function go(index) {
  const { photos } = page.claim;
  page.index = (index + photos.length) % photos.length;
  showStrip();
  showCurrent();
  const photo = photos[page.index];
  announce(`${say("photo_of", { index: page.index + 1, count: photos.length })}: ${say(`outcome_${photo.outcome}`)}`);
  at("strip").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function newClaim() {
  forgetClaim(page.claim);
  page.claim = null;
  intake.clear();
  at("claim-text").value = "";
  showResults();
  at("photos").focus();
}

function announceResults() {
  const { photos, recommendation } = page.claim;
  announce(say("results_ready", { count: photos.length, recommendation: say(`recommend_${recommendation ?? "none"}`) }));
  at("claim").scrollIntoView({ block: "start" });
}

function announce(text) {
  at("announcement").textContent = text;
}

// Decisions

async function takeDecision(choice) {
  const photo = page.claim.photos[page.index];
  if (photo.error) return;
  const focused = document.activeElement?.dataset?.decision;
  try {
    await withKey(() => decide(page.claim, photo, choice, words()));
    showStrip();
    showDeciding();
    if (focused) at("deciding").querySelector(`[data-decision=${focused}]`)?.focus();
    announce(say("decided", { decision: say(`decide_${choice}`) }));
    await showCounts();
  } catch (error) {
    if (page.claim === null) return showProblem(error);
    go(page.claim.photos.indexOf(photo)); // the reviewer may be at another one by now
    const saved = at("saved");
    saved.textContent = say("save_failed", { message: error.message });
    saved.className = "problem";
    announce(saved.textContent);
  }
}

async function showCounts() {
  page.counts = await countDecisions(words()).catch(() => null); // not known without a key
  showKept();
}

function showKept() {
  const { counts, on_disk: onDisk } = page.counts ?? {};
  at("decided").textContent = counts ? `${say("counts", counts)} ${onDisk ? "" : say("not_on_disk")}` : "";
}

async function exportManifest() {
  try {
    const { text } = await withKey(() => ask("GET", "v1/reviews/export"));
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "metadata.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    at("decided").textContent = error.message;
  }
}

// The model, the language, the keyboard

async function showModel() {
  page.model ??= (await ask("GET", "v1/model").catch(() => null))?.data ?? null;
  const { model } = page;
  at("model").textContent = model ? say(model.demo ? "model_demo" : "model", { version: model.model_version }) : "";
  at("promise").textContent = model ? (model.policy?.guarantee?.statement ?? say("promise_none")) : "";
}

function showLanguage() {
  applyLanguage();
  const rows = [["j / →", "key_j"], ["k / ←", "key_k"], ["h", "key_h"], ["b", "key_b"], ["[ ]", "key_brackets"], ["1 2 3", "key_decide"], ["?", "key_help"]];
  at("shortcuts").replaceChildren(
    ...rows.flatMap(([keys, meaning]) => [element("dt", {}, element("kbd", {}, keys)), element("dd", {}, say(meaning))]),
  );
  showKept();
  at("problem").hidden = true;
  intake.draw();
  showResults();
  showModel();
}

const SHORTCUTS = {
  j: () => go(page.index + 1),
  ArrowRight: () => go(page.index + 1),
  k: () => go(page.index - 1),
  ArrowLeft: () => go(page.index - 1),
  h: toggleHeat,
  b: toggleBoxes,
  "[": () => changeOpacity(-10),
  "]": () => changeOpacity(10),
  1: () => takeDecision("real"),
  2: () => takeDecision("synthetic"),
  3: () => takeDecision("unsure"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.repeat && "123".includes(event.key)) return; // a key held down is one decision
  if (event.target.closest("textarea, select, input:not([type=checkbox])")) return;
  if (event.key === "?") at("help-dialog").showModal();
  else if (page.claim && event.key in SHORTCUTS) SHORTCUTS[event.key]();
  else return;
  event.preventDefault();
});

at("intake").addEventListener("submit", (event) => {
  event.preventDefault();
  judge();
});
at("cancel").addEventListener("click", () => page.sending?.abort());
at("language").addEventListener("click", () => {
  switchLanguage();
  showLanguage();
});
at("help").addEventListener("click", () => at("help-dialog").showModal());
at("export").addEventListener("click", exportManifest);

showLanguage();
showCounts();
