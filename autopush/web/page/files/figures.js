// The operator's figures.

import { element, live, number } from "./live.js";

const list = document.getElementById("figures-list");
const reasons = document.getElementById("figures-reasons");

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

function size(bytes) {
  if (bytes >= 2 ** 20) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return bytes >= 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${bytes} bytes`;
}

function health({ up, waiting }) {
  if (up === null) return "not looked at yet";
  return `${up ? "works" : "fails"}${waiting ? `, ${number(waiting)} writes wait` : ""}`;
}

/** What is shown: a name for people, and what it is. */
function entries(figures) {
  const { stored } = figures;
  const shown = [
    ["Connections", number(figures.connections)],
    ["Users", number(figures.users)],
    ["Subscriptions", number(figures.channels)],
    ["Messages in the last minute", number(figures.messages.minute)],
    ["Messages since the start", number(figures.messages.total)],
    ["Stored", stored ? `${number(stored.messages)} (${size(stored.bytes)})` : "not known yet"],
    ["Not acknowledged yet", number(figures.unacknowledged)],
    ["Store", health(figures.store)],
    ["Running for", duration(figures.uptime)],
    ["Version", figures.version],
  ];
  const { workers } = figures;
  if (workers) shown.push(["Workers", `${workers.serving} of ${workers.count}`]);
  const days = figures.certificate_days;
  if (days !== null) shown.push(["Certificate ends in", `${Math.floor(days)} days`]);
  return shown;
}

function show(figures) {
  list.replaceChildren(...entries(figures).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  const rows = figures.refused.map(({ count, status, reason }) => {
    const row = document.createElement("tr");
    row.append(element("td", number(count)), element("td", status), element("td", reason));
    return row;
  });
  if (rows.length) reasons.replaceChildren(...rows);
}

await live(document.getElementById("figures-part"), document.getElementById("figures-trouble"), show);
