// The page itself: sends a claim, shows the answer photo by photo, and listens to the keyboard.

import { request, requestFile, setKey } from "./api.js";
import { createBatch, drawBatch } from "./batch.js";
import { ACTION_KEYS, caseCard, choose as chooseAction, recordCard } from "./case.js";
import { forgetClaim, readClaim } from "./claim.js";
import { countDecisions, decide, decisionForm, recallDecisions } from "./decision.js";
import { element } from "./dom.js";
import { badge, claimSummary, photoFacts } from "./facts.js";
import { createIntake } from "./intake.js";
import { applyLanguage, say, switchLanguage } from "./language.js";
import { createQueue, showQueue, stepQueue } from "./queue.js";
import { changeOpacity, showPhoto, toggleBoxes, toggleHeat, zoomBy } from "./viewer.js";

const at = (id) => document.getElementById(id);
const intake = createIntake(at("intake"), updateJudge);
const page = { claim: null, found: null, index: 0, sending: null, model: null, counts: null, hasStore: false };

const CASE_FIELDS = [
  ["order_id", "order-id"],
  ["product", "product"],
  ["amount", "amount"],
  ["currency", "currency"],
  ["buyer", "buyer"],
  ["merchant", "merchant"],
];

// Which view: the queue, a claim of it, or a new check. The address says it, so a reload comes back.

async function route() {
  const [, view, id] = location.hash.match(/^#(\w+)(?:\/(.+))?$/) ?? [null, page.hasStore ? "queue" : "new"];
  at("problem").hidden = true;
  try {
    if (view === "claim" && id) await openClaim(decodeURIComponent(id));
    else if (view === "queue" && page.hasStore) await openQueue();
    else if (view === "batch" && page.hasStore) openBatch();
    else newClaim();
  } catch (error) {
    showView("queue");
    at("queue-total").textContent = error.message;
  }
}

function showView(name) {
  for (const view of ["queue", "intake", "batch", "results"]) at(view).hidden = view !== name;
  at("to-queue").setAttribute("aria-current", String(name === "queue"));
  at("to-new").setAttribute("aria-current", String(name === "intake"));
  at("to-batch").setAttribute("aria-current", String(name === "batch"));
}

function openBatch() {
  forget();
  showView("batch");
  drawBatch();
}

async function openQueue() {
  forget();
  await showQueue((path) => withKey(() => request("GET", path)));
  showView("queue");
  announce(at("queue-total").textContent);
}

async function openClaim(id) {
  if (page.found?.case.claim_id === id && page.claim) return showResults();
  const path = `v1/claims/${encodeURIComponent(id)}`;
  const { data } = await withKey(() => request("GET", path));
  const found = await loadCase(id);
  const pictures = (kind, list) => Promise.all(list.map((photo, index) => (photo.error ? null : pictureFile(id, kind, index, photo.name))));
  const [photos, listings] = await Promise.all([pictures("photo", data.photos), pictures("listing", data.listings)]);
  forget();
  page.claim = readClaim(data, photos, listings);
  page.found = found;
  page.index = 0;
  showResults();
  await recallDecisions(page.claim).catch(() => {});
  showStrip();
  showDeciding();
}

async function loadCase(id) {
  return (await withKey(() => request("GET", `v1/claims/${encodeURIComponent(id)}/case`))).data;
}

async function pictureFile(id, kind, index, name) {
  const path = `pictures/${kind}-${String(index + 1).padStart(2, "0")}.jpg`;
  try {
    const blob = await requestFile(`v1/claims/${encodeURIComponent(id)}/files/${path}`);
    return new File([blob], name, { type: "image/jpeg" });
  } catch {
    return null; // the verdict is readable without the picture
  }
}

function forget() {
  if (page.claim) forgetClaim(page.claim);
  page.claim = page.found = null;
}

function showCase() {
  const { found } = page;
  at("case").hidden = at("record").hidden = found === null;
  if (found === null) return;
  const id = encodeURIComponent(found.case.claim_id);
  const act = async (path, body) => {
    try {
      page.found = (await withKey(() => request("POST", `v1/claims/${id}/${path}`, { body }))).data;
      showCase();
      announce(say(`state_${page.found.case.state}`));
    } catch (error) {
      if (error.code === "changed_meanwhile") {
        page.found = await loadCase(found.case.claim_id);
        showCase();
      }
      const problem = at("case-problem");
      problem.textContent = error.message;
      problem.hidden = false;
    }
  };
  const link = async (side) => {
    const { data } = await withKey(() => request("POST", `v1/claims/${id}/links`, { body: { side } }));
    page.found = await loadCase(found.case.claim_id);
    return new URL(data.path, document.baseURI.replace(/#.*/, "")).href;
  };
  const redraw = () => at("case").replaceChildren(...caseCard(page.found, { act, link, redraw }).filter(Boolean));
  redraw();
  const file = (path) => requestFile(`v1/claims/${id}/files/${path}`);
  const picture = async (path) => URL.createObjectURL(await file(path));
  const statement = async (folder) => JSON.parse(await (await file(`statements/${folder}/statement.json`)).text());
  at("record").replaceChildren(...recordCard(found, { picture, statement }));
}

// Sending a claim

async function judge() {
  const { photos, listings } = intake.files;
  const body = new FormData();
  for (const file of photos) body.append("photos", file, file.name);
  for (const file of listings) body.append("listings", file, file.name);
  if (at("claim-text").value.trim()) body.append("text", at("claim-text").value.trim());
  if (page.hasStore && at("keep").checked) {
    body.append("keep", "true");
    for (const [name, id] of CASE_FIELDS) if (at(id).value.trim()) body.append(name, at(id).value.trim());
  }
  page.sending = new AbortController();
  showSending(0);
  try {
    const { data } = await withKey(() =>
      request("POST", "v1/claims", { body, onProgress: showSending, signal: page.sending.signal }),
    );
    page.claim = readClaim(data, photos, listings);
    page.index = 0;
    page.found = null;
    if (data.evidence_url) {
      history.pushState(null, "", `#claim/${encodeURIComponent(data.claim_id)}`);
      page.found = await loadCase(data.claim_id).catch(() => null);
    }
    showResults();
    announceResults();
    await recallDecisions(page.claim).catch(() => {}); // the verdict is valid without them
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
  at("problem").textContent = error.message;
  at("problem").hidden = false;
}

function updateJudge() {
  at("judge").disabled = intake.files.photos.length === 0 || page.sending !== null;
}

// Showing the answer

function showResults() {
  const { claim } = page;
  if (claim === null) return;
  showView("results");
  showCase();
  at("claim").replaceChildren(...claimSummary(claim, () => {
    newClaim();
    at("photos").focus();
  }).filter(Boolean));
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
  if (location.hash.startsWith("#claim")) history.pushState(null, "", "#new");
  if (page.claim) intake.clear();
  forget();
  at("claim-text").value = "";
  showView("intake");
  at("keeping").hidden = !page.hasStore;
}

function announceResults() {
  const { photos, recommendation } = page.claim;
  announce(say("results_ready", { count: photos.length, recommendation: say(`recommend_${recommendation}`) }));
  scrollTo(0, 0);
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
    await withKey(() => decide(page.claim, photo, choice));
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
  page.counts = await countDecisions().catch(() => null); // not known without a key
  showKept();
}

function showKept() {
  const { counts, on_disk: onDisk } = page.counts ?? {};
  at("decided").textContent = counts ? `${say("counts", counts)} ${onDisk ? "" : say("not_on_disk")}` : "";
}

async function exportManifest() {
  try {
    const { text } = await withKey(() => request("GET", "v1/reviews/export"));
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "metadata.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    at("decided").textContent = error.message;
  }
}

// The model, the language, the keyboard

async function showModel() {
  page.model ??= (await request("GET", "v1/model").catch(() => null))?.data ?? null;
  const { model } = page;
  at("model").textContent = model ? say(model.demo ? "model_demo" : "model", { version: model.model_version }) : "";
  at("promise").textContent = model ? (model.policy?.guarantee?.statement ?? say("promise_none")) : "";
}

function showLanguage() {
  applyLanguage();
  const rows = [["j / →", "key_j"], ["k / ←", "key_k"], ["h", "key_h"], ["b", "key_b"], ["[ ]", "key_brackets"], ["+ − 0", "key_zoom"], ["1 2 3", "key_decide"], ["r p t a f", "key_case"], ["/ q n m", "key_views"], ["?", "key_help"]];
  at("shortcuts").replaceChildren(
    ...rows.flatMap(([keys, meaning]) => [element("dt", {}, element("kbd", {}, keys)), element("dd", {}, say(meaning))]),
  );
  showKept();
  at("problem").hidden = true;
  intake.draw();
  drawBatch();
  if (!at("queue").hidden) openQueue().catch(() => {});
  else if (!at("results").hidden) showResults();
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
  "+": () => zoomBy(1.25),
  "-": () => zoomBy(0.8),
  0: () => zoomBy(0),
  1: () => takeDecision("real"),
  2: () => takeDecision("synthetic"),
  3: () => takeDecision("unsure"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.repeat && "123".includes(event.key)) return; // a key held down is one decision
  if (event.target.closest("textarea, select, input:not([type=checkbox])")) return;
  if (event.key === "?") at("help-dialog").showModal();
  else if (page.hasStore && "/q".includes(event.key)) {
    location.hash = "queue";
    if (event.key === "/") at("q").focus();
  } else if (event.key === "n") location.hash = "new";
  else if (page.hasStore && event.key === "m") location.hash = "batch";
  else if (!at("queue").hidden && "jk".includes(event.key)) stepQueue(event.key === "j" ? 1 : -1);
  else if (!at("results").hidden && page.claim && event.key in SHORTCUTS) SHORTCUTS[event.key]();
  else if (!at("results").hidden && page.found && event.key in ACTION_KEYS && document.querySelector("[data-action]"))
    chooseAction(ACTION_KEYS[event.key], showCase);
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

addEventListener("hashchange", route);
createBatch((method, path, options) => withKey(() => request(method, path, options)));
createQueue(() => openQueue().catch((error) => (at("queue-total").textContent = error.message)));

showLanguage();
await withKey(() => request("GET", "v1/claims?limit=1")).then(
  () => (page.hasStore = true),
  () => {}, // a service without a store has no queue
);
at("to-queue").hidden = at("to-batch").hidden = !page.hasStore;
await route();
showModel(); // a key may have been asked for
showCounts();
