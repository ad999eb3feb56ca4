// The operator's figures, live as long as somebody looks.

const INTERVAL = 2; // seconds
const KEPT = "autopush-page-token";

const { root } = document.body.dataset;
const part = document.getElementById("figures-part");
const list = document.getElementById("figures-list");
const reasons = document.getElementById("figures-reasons");
const trouble = document.getElementById("figures-trouble");

/** The token behind the address, which is taken away from there, or that of before. */
function shownToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEPT, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEPT);
}

const number = (value) => (value === null || value === undefined ? "not known yet" : value.toLocaleString("en"));

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
  const days = figures.certificate_days;
  if (days !== null) shown.push(["Certificate ends in", `${Math.floor(days)} days`]);
  return shown;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
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

/** Fetch and show; whether to go on. */
async function look(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch(`${root}/page/figures`, { headers, cache: "no-store" });
    if (answer.status === 401) {
      sessionStorage.removeItem(KEPT);
      trouble.textContent = "This token is not the one of the service.";
      return false;
    }
    show(await answer.json());
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = `The service does not answer: ${error.message}`;
  }
  return true;
}

/** Fires when somebody looks at the page. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

const token = shownToken();
if (token || part.dataset.local) {
  part.hidden = false;
  while (await look(token)) {
    await new Promise((resolve) => setTimeout(resolve, INTERVAL * 1000));
    await visible();
  }
}
