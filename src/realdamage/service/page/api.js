// Talks to the service: the API key, upload progress, and errors in the server's own words.

import { say } from "./language.js";

const KEY = "realdamage.key";

/** What the server said, or why it could not be asked. `code` is the server's, "" when it gave none. */
class ServiceError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    Object.assign(this, { status, code });
  }
}

export function setKey(key) {
  // A header cannot carry other characters. The service then refuses the key, and the page asks again.
  sessionStorage.setItem(KEY, key.replace(/[^!-~]/g, ""));
}

/**
 * Sends one request and resolves to { data, text }; rejects with a ServiceError whose message is for people.
 * body: FormData or a plain object (sent as JSON). onProgress: called with the share of the upload done, 0..1.
 * signal: an AbortSignal.
 */
export function request(method, path, { body = null, onProgress = null, signal = null } = {}) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest(); // fetch reports no upload progress
    call.open(method, path);
    const key = sessionStorage.getItem(KEY);
    if (key) call.setRequestHeader("Authorization", `Bearer ${key}`);
    if (onProgress) call.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    call.onload = () => {
      const data = parse(call.responseText);
      if (call.status >= 200 && call.status < 300) {
        resolve({ data, text: call.responseText });
      } else {
        const { message, code = "" } = data?.error ?? {};
        reject(new ServiceError(message || say("refused", { status: call.status }), call.status, code));
      }
    };
    call.onerror = () => reject(new ServiceError(say("unreachable")));
    call.onabort = () => reject(new ServiceError(say("cancelled")));
    signal?.addEventListener("abort", () => call.abort());
    if (body instanceof FormData || body === null) {
      call.send(body);
    } else {
      call.setRequestHeader("Content-Type", "application/json");
      call.send(JSON.stringify(body));
    }
  });
}

/** A file of the service as a Blob; rejects with a ServiceError. */
export async function requestFile(path) {
  const key = sessionStorage.getItem(KEY);
  const answer = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (!answer.ok) throw new ServiceError(`HTTP ${answer.status}`, answer.status);
  return answer.blob();
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a proxy's page, or a CSV
  }
}
