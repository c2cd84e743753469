// The queue of kept claims: search, filters, order, pages.

import { element } from "./dom.js";
import { currentLanguage, say } from "./language.js";

const STATES = ["open", "waiting_buyer", "waiting_merchant", "decided", "appealed", "closed"];
const ORDERS = ["deadline", "expected_loss", "created", "updated"];
const PAGE = 25;
const at = (id) => document.getElementById(id);
const page = { offset: 0, total: 0 };

/** Shows the queue. ask(path): resolves to the service's answer. */
export async function showQueue(ask) {
  const state = at("state").value;
  const order = at("order").value || "deadline";
  const query = new URLSearchParams({ q: at("q").value.trim(), order, limit: PAGE, offset: page.offset });
  if (state) query.set("state", state);
  const { data } = await ask(`v1/claims?${query}`);
  page.total = data.total;
  options(at("state"), ["", ...STATES], state, (name) => (name ? `${say(`state_${name}`)} (${data.counts[name] ?? 0})` : say("state_all")));
  options(at("order"), ORDERS, order, (name) => say(`order_${name}`));
  at("queue-total").textContent = say("queue_total", { count: data.total });
  at("cases").replaceChildren(...data.cases.map(entry));
  if (data.cases.length === 0) at("cases").append(element("li", { class: "quiet" }, say("queue_empty")));
  at("queue-back").disabled = page.offset === 0;
  at("queue-more").disabled = page.offset + PAGE >= data.total;
}

/** Wires the form and the paging; `onChange` shows the queue again. */
export function createQueue(onChange) {
  const first = () => {
    page.offset = 0;
    onChange();
  };
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    first();
  });
  at("state").addEventListener("change", first);
  at("order").addEventListener("change", first);
  const turn = (by) => {
    page.offset = Math.max(0, page.offset + by * PAGE);
    onChange();
  };
  at("queue-back").addEventListener("click", () => turn(-1));
  at("queue-more").addEventListener("click", () => turn(1));
}

/** Moves the focus to the next or previous claim of the queue. */
export function stepQueue(by) {
  const links = [...at("cases").querySelectorAll("a")];
  const now = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, now + by))]?.focus();
}

function options(select, names, chosen, words) {
  select.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === chosen }, words(name))));
}

function entry(found) {
  const late = found.deadline * 1000 < Date.now() && !["decided", "closed"].includes(found.state);
  return element(
    "li",
    {},
    element(
      "a",
      { href: `#claim/${encodeURIComponent(found.claim_id)}` },
      element("strong", { class: "id" }, found.claim_id),
      element("span", { class: `badge ${tone(found.recommendation)}` }, say(`recommend_${found.recommendation}`)),
      element("span", { class: "what" }, [found.product, found.order_id, found.merchant].filter(Boolean).join(" · ")),
      element("span", { class: "money" }, money(found)),
      element("span", { class: "quiet" }, say(`state_${found.state}`)),
      element("span", { class: late ? "late" : "quiet" }, say("due", { when: when(found.deadline) })),
      repeats(found.repeats) && element("span", { class: "small quiet" }, repeats(found.repeats)),
    ),
  );
}

function tone(recommendation) {
  return { approve: "real", ask_photo: "review", review: "review", escalate: "synthetic" }[recommendation] ?? "";
}

/** The amount with its currency, and what the decision may save; "" without an amount. */
export function money(found) {
  return found.amount === "0.00" ? "" : `${found.amount} ${found.currency}`.trim();
}

/** A time in the reader's own words. */
export function when(seconds) {
  return new Date(seconds * 1000).toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "short" });
}

/** Earlier claims as a sentence of facts; "" when there are none. */
export function repeats({ days, ...counts }) {
  const parts = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => say(`repeat_${name}`, { count }));
  return parts.length === 0 ? "" : say("repeats", { days, facts: parts.join(say("list_comma")) });
}

