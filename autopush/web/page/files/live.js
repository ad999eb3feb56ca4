// What only the operator is shown, live as long as somebody looks.

const INTERVAL = 2; // seconds
const KEPT = "autopush-page-token";

const { root } = document.body.dataset;

/** The token behind the address, which is taken away from there, or that of before. */
function shownToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEPT, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEPT);
}

/** Fetch and show; whether to go on. */
async function look(token, trouble, show) {
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

/**
 * Unhide a part of the page, for the operator only, and keep it up to date.
 *
 * @param part the element
 * @param trouble where to say what is wrong
 * @param show is called with what the service says
 */
export async function live(part, trouble, show) {
  const token = shownToken();
  if (!token && !part.dataset.local) return;
  part.hidden = false;
  while (await look(token, trouble, show)) {
    await new Promise((resolve) => setTimeout(resolve, INTERVAL * 1000));
    await visible();
  }
}

export const number = (value) => (value === null || value === undefined ? "not known yet" : value.toLocaleString("en"));

/** An element that consists of a text. */
export function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
