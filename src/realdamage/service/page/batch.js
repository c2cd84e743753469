// Many claims at once, from a zip or a folder: sends them, and shows how far each is.

import { element } from "./dom.js";
import { say } from "./language.js";

const ASK_EVERY_MS = 1500;
const ASKED_AT_ONCE = 5; // they are judged in order, so the first ones are done first
const at = (id) => document.getElementById(id);
const batch = { parts: [], files: 0, jobs: [], ask: null, isAsking: false };

/** Wires the form. ask(method, path, options): resolves to the service's answer. */
export function createBatch(ask) {
  batch.ask = ask;
  at("batch-zip").addEventListener("change", () => choose([...at("batch-zip").files].map((file) => [file]), true));
  at("batch-folder").addEventListener("change", () => choose(byFolder([...at("batch-folder").files]), false));
  at("batch").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

/** Writes again what is said in the page's language. */
export function drawBatch() {
  at("batch-chosen").textContent = batch.files > 0 ? say("batch_chosen", { count: batch.files }) : "";
  at("batch-send").disabled = batch.files === 0;
  at("batch-claims").replaceChildren(...batch.jobs.map(line));
}

// The photos of one folder go in one request; loose ones together. The chosen folder's own name is left out.
function byFolder(files) {
  const parts = new Map();
  for (const file of files.filter(isPhoto)) {
    const [, ...path] = file.webkitRelativePath.split("/");
    const folder = path.length > 1 ? path[0] : "";
    const entry = { file, name: path.join("/") };
    parts.set(folder, [...(parts.get(folder) ?? []), entry]);
  }
  return [...parts.values()];
}

// The service would leave the others out: they need not be sent.
function isPhoto({ type, name }) {
  return type.startsWith("image/") || /\.(hei[cf]|avif|jp2|mpo)$/i.test(name);
}

function choose(parts, isZip) {
  batch.parts = isZip ? parts.map(([file]) => ({ zip: file })) : parts.map((photos) => ({ photos }));
  batch.files = parts.flat().length;
  at("batch-problem").hidden = true;
  drawBatch();
}

async function send() {
  const problem = at("batch-problem");
  problem.hidden = true;
  at("batch-send").disabled = true;
  at("batch-progress").hidden = false;
  const count = batch.parts.length;
  let ignored = 0;
  try {
    while (batch.parts.length > 0) {
      const done = count - batch.parts.length;
      const onProgress = (share) => (at("batch-progress").value = (done + share) / count);
      const { data } = await batch.ask("POST", "v1/batches", { body: bodyOf(batch.parts[0]), onProgress });
      ignored += data.ignored.length;
      batch.jobs.push(...data.claims);
      batch.parts.shift(); // what was sent is not sent again
      drawBatch();
    }
    batch.files = 0;
    at("batch-status").textContent = ignored > 0 ? say("batch_ignored", { count: ignored }) : "";
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    at("batch-progress").hidden = true;
    at("batch-zip").value = at("batch-folder").value = "";
    drawBatch();
    follow();
  }
}

function bodyOf({ zip, photos = [] }) {
  const body = new FormData();
  if (zip) body.append("archive", zip, zip.name);
  for (const { file, name } of photos) body.append("photos", file, name);
  for (const name of ["merchant", "currency"]) {
    const value = at(`batch-${name}`).value.trim();
    if (value) body.append(name, value);
  }
  return body;
}

async function follow() {
  if (batch.isAsking) return;
  batch.isAsking = true;
  const running = () => batch.jobs.filter(({ status }) => status === "running");
  try {
    while (running().length > 0) {
      for (const job of running().slice(0, ASKED_AT_ONCE)) {
        Object.assign(job, (await batch.ask("GET", job.url.slice(1))).data);
      }
      drawBatch();
      await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
    }
  } catch (error) {
    at("batch-status").textContent = error.message;
  } finally {
    batch.isAsking = false;
  }
}

function line(job) {
  const name = element("strong", { class: "id" }, job.claim_id);
  const link = job.status === "done" ? element("a", { href: `#claim/${encodeURIComponent(job.claim_id)}` }, name) : name;
  const why = job.error && element("span", { class: "small", lang: "en" }, job.error.message);
  return element("li", {}, link, element("span", { class: "quiet" }, say(`job_${job.status}`)), why);
}
