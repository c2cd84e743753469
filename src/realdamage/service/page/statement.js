// The page of a one-time link: what the buyer or the merchant says, with frames from the live camera.

import { request } from "./api.js";
import { applyLanguage, say, switchLanguage } from "./language.js";
import { repeats, when } from "./queue.js";

const EVERY_MS = 400;
const at = (id) => document.getElementById(id);
const token = location.pathname.split("/").pop();
const path = `../v1/statements/${token}`;
const shot = { frames: [], taken: [] };
let asked = null;

function show() {
  applyLanguage();
  if (!asked) return;
  at("title").textContent = say(`statement_${asked.side}`);
  at("about").textContent = [asked.product, asked.order_id].filter(Boolean).join(" · ") || say(`statement_${asked.side}`);
  at("until").textContent = say("statement_until", { when: when(asked.expires) });
  const facts = asked.repeats ? repeats(asked.repeats) : "";
  at("facts").textContent = facts && `${facts} ${say("statement_reply")}`;
  at("nonce").textContent = asked.nonce;
  at("recapture").hidden = asked.frames === 0;
  at("video-field").hidden = !asked.takes_videos;
  at("statement").hidden = false;
}

function showProblem(error) {
  at("problem").textContent = error.message;
  at("problem").hidden = false;
}

async function openCamera() {
  try {
    const camera = { facingMode: "environment", width: { ideal: 1920 } };
    at("live").srcObject = await navigator.mediaDevices.getUserMedia({ video: camera, audio: false });
    at("live").parentElement.hidden = false;
    at("shoot").disabled = false;
  } catch {
    at("shot").textContent = say("recapture_no_camera");
  }
}

async function shoot() {
  const video = at("live");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  Object.assign(shot, { frames: [], taken: [] });
  at("shoot").disabled = true;
  for (let number = 1; number <= asked.frames; number += 1) {
    canvas.getContext("2d").drawImage(video, 0, 0);
    shot.taken.push(Date.now());
    shot.frames.push(await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92)));
    at("shot").textContent = say("recapture_count", { number, count: asked.frames });
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
  at("shoot").disabled = false;
}

async function send() {
  const body = new FormData();
  body.append("text", at("text").value.trim());
  shot.frames.forEach((frame, index) => body.append("frames", frame, `frame-${index + 1}.jpg`));
  if (shot.frames.length > 0) {
    body.append("taken", shot.taken.join(","));
    body.append("nonce", asked.nonce);
  }
  for (const file of at("photos").files) body.append("photos", file, file.name);
  for (const file of at("videos").files) body.append("videos", file, file.name);
  at("problem").hidden = true;
  at("send").disabled = true;
  try {
    at("status").textContent = say("judging");
    await request("POST", path, { body });
    at("live").srcObject?.getTracks().forEach((track) => track.stop());
    at("statement").hidden = true;
    at("done").hidden = false;
  } catch (error) {
    showProblem(error);
  } finally {
    at("status").textContent = "";
    at("send").disabled = false;
  }
}

at("language").addEventListener("click", () => {
  switchLanguage();
  show();
});
for (const input of [at("photos"), at("videos")]) {
  input.addEventListener("change", () => {
    const names = [...input.files].map(({ name }) => name);
    input.parentElement.querySelector(".chosen-names").textContent = names.join(", ");
  });
}
at("open-camera").addEventListener("click", openCamera);
at("shoot").addEventListener("click", shoot);
at("statement").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

show();
try {
  asked = (await request("GET", path)).data;
  show();
} catch (error) {
  showProblem(error);
}
