// What tests do with the service: messages, refusals, subscriptions.

import { element, live, number } from "./live.js";

const WORD = 24; // characters that are not broken
const SHOWN_PATH = 40; // characters

/** The time of day of Unix seconds, by the service's clock. */
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

const counted = (count, name) => `${number(count)} ${name}${count === 1 ? "" : "s"}`;

/** Where a request was sent to: a browser of the service, another one, or nowhere. */
function receiver({ browser, subscription, path }) {
  if (browser) return `browser ${browser}`;
  if (subscription) return "a browser of its own";
  return path.length > SHOWN_PATH ? `${path.slice(0, SHOWN_PATH)}...` : path || "no request";
}

function text({ texts, bytes, error }) {
  if (texts.length) return [...new Set(texts)].join("\n");
  if (error) return error;
  return bytes ? `${counted(bytes, "byte")}, encrypted` : "no data";
}

/** How often it came, as far as that is known. */
function came({ browser, count, fault }) {
  const times = count > 1 ? `${count} times` : count ? "yes" : browser ? "not yet" : "not known here";
  return fault ? `${times} (${fault})` : times;
}

/** What the sender said of it. */
function details({ ttl, topic, urgency, sender }) {
  const named = { TTL: ttl, Topic: topic, Urgency: urgency, "signed by": sender };
  return Object.entries(named)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

/** Fill a table, unless it says all that already. */
function fill(id, rows, nothing = "none") {
  const body = document.getElementById(id);
  const said = JSON.stringify(rows);
  if (body.dataset.said === said) return;
  body.dataset.said = said;
  const made = rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => {
      const cell = element("td", text);
      if (String(text).length > WORD) cell.className = "long";
      return cell;
    }));
    return row;
  });
  if (!made.length) {
    const row = document.createElement("tr");
    row.append(element("td", nothing));
    row.firstChild.colSpan = body.parentNode.tHead.rows[0].cells.length;
    made.push(row);
  }
  body.replaceChildren(...made);
}

function show({ ahead, faults, messages, refused, subscriptions }) {
  const state = document.getElementById("inbox-state");
  const parts = faults.map((fault) => `Fault in force: ${fault}.`);
  if (ahead) parts.push(`The clock is ${counted(Math.round(ahead), "second")} ahead.`);
  if (state.textContent !== parts.join(" ")) state.textContent = parts.join(" ");
  fill("inbox-messages", messages.map((one) => [clock(one.time), receiver(one), text(one), came(one), details(one)]));
  fill("inbox-refused", refused.map((one) => [
    clock(one.time), receiver(one), one.status ?? "none", one.reason ?? one.fault ?? "not known",
  ]));
  fill("inbox-subscriptions", subscriptions.map(({ browser, online, endpoint }) => [
    browser, online ? "online" : "offline", endpoint,
  ]));
}

await live(document.getElementById("inbox-part"), document.getElementById("inbox-trouble"), show);
