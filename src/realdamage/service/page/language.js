// The page's language: chosen once, remembered in this browser, applied to all that is marked in the page.

import { recall, remember } from "./memory.js";
import { STRINGS } from "./strings.js";

const DOCUMENT_LANGUAGE = { en: "en", zh: "zh-CN" };

let language = initial();

// The service's own sentences. Without them they are shown in English, as the service says them.
const PHRASES = await fetch(new URL("phrases/zh.json", import.meta.url))
  .then((answer) => (answer.ok ? answer.json() : {}))
  .catch(() => ({}));

function initial() {
  const remembered = recall("language");
  if (remembered in STRINGS) return remembered;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The text for `key`, with {name} filled in; the key itself when there is none. */
export function say(key, values = {}) {
  const text = STRINGS[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The service's phrases in the page's language; null when one has no translation, and always in English. */
export function sayPhrases(phrases) {
  const templates = language === "zh" ? PHRASES : {};
  const texts = (phrases ?? []).map(({ template, values }) => {
    const text = Object.hasOwn(templates, template) ? templates[template] : null;
    const names = [...(text ?? "").matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    if (text === null || names.some((name) => !Object.hasOwn(values ?? {}, name))) return null;
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  });
  return texts.length === 0 || texts.includes(null) ? null : texts.join("");
}

/** "en" or "zh". */
export function currentLanguage() {
  return language;
}

/** Switches to the other language and remembers it. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  remember("language", language);
  applyLanguage();
}

/** Writes the words into everything marked with data-i18n, -label or -placeholder. */
export function applyLanguage() {
  document.documentElement.lang = DOCUMENT_LANGUAGE[language];
  for (const node of document.querySelectorAll("[data-i18n]")) node.textContent = say(node.dataset.i18n);
  for (const node of document.querySelectorAll("[data-i18n-label]")) {
    node.setAttribute("aria-label", say(node.dataset.i18nLabel));
    node.title = say(node.dataset.i18nLabel);
  }
  for (const node of document.querySelectorAll("[data-i18n-placeholder]")) {
    node.setAttribute("placeholder", say(node.dataset.i18nPlaceholder));
  }
  const other = language === "en" ? "zh" : "en";
  const button = document.getElementById("language");
  button.textContent = STRINGS[other].language_name;
  button.lang = DOCUMENT_LANGUAGE[other];
}
