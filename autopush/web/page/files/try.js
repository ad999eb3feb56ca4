// Subscribe, encrypt, send, receive: step by step, each with its time, and where one fails, why.

import { Sender, encrypted } from "./webpush.js";

const SUBSCRIBE_WITHIN = 30; // seconds
const RECEIVE_WITHIN = 5; // seconds
const TTL = 60; // seconds

const { root, api, pushServer } = document.body.dataset;
const start = document.getElementById("try-start");
const list = document.getElementById("try-steps");
const result = document.getElementById("try-result");

/** Something is not as it has to be; the message is for people. */
class Trouble extends Error {}

const steps = [
  ["This browser can do Web Push", async () => {
    if (!isSecureContext) {
      throw new Trouble(
        `Browsers have push for pages over https and at localhost only, and this is ${location.origin}.` +
        " Open the page at an https address, or on the machine of the service at http://localhost.",
      );
    }
    if (!navigator.serviceWorker) {
      throw new Trouble(
        "There are no service workers here, which push needs. Firefox has none in private windows.",
      );
    }
    if (!window.PushManager || !window.Notification) {
      throw new Trouble("This browser has no Web Push. On an iPhone, add the page to the home screen first.");
    }
  }],
  ["You allow notifications", async () => {
    const answer = await Notification.requestPermission();
    if (answer !== "granted") {
      throw new Trouble(
        answer === "denied"
          ? "This browser doesn't allow notifications of this page. See the settings of the site, left of its address."
          : "The question was not answered. Try again, and allow it.",
      );
    }
  }],
  ["A service worker is there", async (known) => {
    known.registration = await working();
  }],
  ["A key is made to sign with", async (known) => {
    known.sender = await Sender.made();
  }],
  ["The browser subscribes", async (known) => {
    known.subscription = await subscribed(known);
    const { endpoint } = known.subscription;
    if (!endpoint.startsWith(`${api}/wpush/`)) {
      throw new Trouble(
        `It has subscribed at ${new URL(endpoint).origin}, so that is the push service it uses, not this one.` +
        ` In Firefox, set dom.push.serverURL to ${pushServer}. Other browsers let nobody choose.`,
      );
    }
  }],
  ["A message is encrypted", async (known) => {
    known.text = `A try at ${new Date().toISOString()}, number ${Math.random()}`;
    known.body = await encrypted(known.subscription, known.text);
  }],
  ["It is signed and sent", async (known) => {
    known.came = arrival(known.text);
    await send(known);
  }],
  ["It has come, and says what was sent", async (known) => {
    const came = await within(RECEIVE_WITHIN, known.came);
    if (came === undefined) {
      throw new Trouble(
        `Nothing came in ${RECEIVE_WITHIN} seconds. The service has accepted the message: the browser may have` +
        " lost its connection to it, or is told not to disturb. It keeps the message for a minute.",
      );
    }
  }],
];

/** Register the worker; the registration once it is at work. Its scope holds nothing but the files of this page. */
async function working() {
  let registration;
  try {
    registration = await navigator.serviceWorker.register(`${root}/page/worker.js`, { scope: `${root}/page/` });
  } catch (error) {
    throw new Trouble(`The browser refuses the service worker: ${error.message}`);
  }
  const worker = registration.active ?? registration.waiting ?? registration.installing;
  while (worker.state !== "activated") {
    if (worker.state === "redundant") throw new Trouble("The browser has given up the service worker.");
    await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
  }
  return registration;
}

/** Subscribe anew: an older subscription has another key. */
async function subscribed({ registration, sender }) {
  const { pushManager } = registration;
  await (await pushManager.getSubscription())?.unsubscribe();
  const wanted = pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: sender.publicKey });
  let subscription;
  try {
    subscription = await within(SUBSCRIBE_WITHIN, wanted);
  } catch (error) {
    throw new Trouble(`The browser says: ${error.message || error.name}. ${unreachable()}`);
  }
  if (!subscription) throw new Trouble(`Nothing happened in ${SUBSCRIBE_WITHIN} seconds. ${unreachable()}`);
  return subscription;
}

function unreachable() {
  return "It may not reach the push service that is set: in Firefox, dom.push.serverURL has to be" +
    ` ${pushServer}${pushServer.startsWith("ws:") ? ", and dom.push.testing.allowInsecureServerURL true" : ""}.` +
    " A private service also wants its access key at the end.";
}

async function send({ subscription, sender, body }) {
  const { endpoint } = subscription;
  let answer;
  try {
    answer = await fetch(endpoint, {
      method: "POST",
      headers: {
        Authorization: await sender.authorization(endpoint),
        "Content-Encoding": "aes128gcm",
        "Content-Type": "application/octet-stream",
        TTL: String(TTL),
        Urgency: "high",
      },
      body,
    });
  } catch (error) {
    throw new Trouble(`This page can't reach ${new URL(endpoint).origin}: ${error.message}`);
  }
  if (!answer.ok) throw new Trouble(await refusal(answer));
}

/** What the service says of a message it doesn't take. */
async function refusal(answer) {
  const said = await answer.text();
  let reason = said.slice(0, 300);
  try {
    reason = JSON.parse(said).message ?? reason;
  } catch {
    // Of something between here and the service.
  }
  return `The answer is ${answer.status}: ${reason || answer.statusText}`;
}

/** Fires when the worker has received this text. */
function arrival(text) {
  return new Promise((resolve) => {
    const { serviceWorker } = navigator;
    serviceWorker.addEventListener("message", function hear(event) {
      if (event.data?.received !== text) return;
      serviceWorker.removeEventListener("message", hear);
      resolve(text);
    });
    serviceWorker.startMessages();
  });
}

/** What a promise gives; undefined if that takes too long. */
function within(seconds, promise) {
  return Promise.race([promise, new Promise((resolve) => setTimeout(resolve, seconds * 1000))]);
}

/** Do one step and show it; whether it went well. */
async function done(title, step, known) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  item.append(`${title} `, time);
  list.append(item);
  const began = performance.now();
  try {
    await step(known);
  } catch (error) {
    item.className = "failed";
    time.textContent = "failed";
    show("failed", `It does not work: ${title[0].toLowerCase()}${title.slice(1)} is where it ends.`, explained(error));
    return false;
  }
  item.className = "done";
  time.textContent = `${Math.round(performance.now() - began)} ms`;
  return true;
}

function explained(error) {
  return error instanceof Trouble ? error.message : `${error.name}: ${error.message}`;
}

function show(state, text, why = "") {
  const [first, second] = [document.createElement("p"), document.createElement("p")];
  first.className = state;
  first.textContent = text;
  second.className = "why";
  second.textContent = why;
  result.replaceChildren(first, ...(why ? [second] : []));
}

/** Disabled for people, not for the browser: a button that is really disabled loses the keyboard's focus. */
function busy() {
  return start.getAttribute("aria-disabled") === "true";
}

async function tryAll() {
  if (busy()) return;
  start.setAttribute("aria-disabled", "true");
  list.replaceChildren();
  result.replaceChildren();
  const known = {};
  let well = true;
  for (const [title, step] of steps) {
    well = await done(title, step, known);
    if (!well) break;
  }
  if (well) show("succeeded", "It works.");
  await known.subscription?.unsubscribe().catch(() => {});
  start.removeAttribute("aria-disabled");
}

start.addEventListener("click", tryAll);
start.disabled = false;
